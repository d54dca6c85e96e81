"""Using a finished model: predict, batch scoring, serving, monitoring."""
