"""Small git repositories for tests, made whatever the machine's user has configured."""

import subprocess
from pathlib import Path

GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")


def git(*command: str, where: Path | None = None) -> str:
    """What git prints, without the last line's end."""
    return subprocess.run([*GIT, *command], cwd=where, check=True, capture_output=True, text=True).stdout.strip()


def commit_all(where: Path | None = None) -> str:
    """Commit everything in this folder, which becomes a repository; returns the commit."""
    git("init", "-q", "-b", "main", where=where)
    git("add", "-A", where=where)
    git("commit", "-qm", "all of it", "--allow-empty", where=where)
    return git("rev-parse", "HEAD", where=where)
