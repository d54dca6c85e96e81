"""The errors that are a user's business. The command line prints them as one line, without a traceback, exit status 1.

Each message names the row or the key, and the way out. Everything else that is raised is a fault of this project.
"""


class HeartMLError(Exception):
    """Base of every error whose message is meant for the person at the terminal."""
