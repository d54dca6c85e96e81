"""Who is held out, and which fold everybody else is in. Groups never cross."""
