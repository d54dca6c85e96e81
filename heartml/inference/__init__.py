"""A registered model at work: predict, batch scoring, serving, monitoring."""
