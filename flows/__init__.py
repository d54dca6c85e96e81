"""Prefect flows: time, retries, notifications. What they do stands in heartml/."""
