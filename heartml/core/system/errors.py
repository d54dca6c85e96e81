"""Errors that a user can do something about. The command line prints them as one line and ends with exit status 1.

Each message names the row or the key, and what to do. Every other exception is a fault of this project, and is shown
with its traceback.
"""


class HeartMLError(Exception):
    """Base of every error whose message is meant for the person at the terminal."""
