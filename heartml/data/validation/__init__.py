"""Is the data fit for training? Great Expectations suites, their tables and the page."""
