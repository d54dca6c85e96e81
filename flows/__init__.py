"""Prefect flows: when something runs, with which retries, and who is notified. The work itself is in heartml/."""
