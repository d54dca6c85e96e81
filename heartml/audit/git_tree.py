"""The code of a commit with a difference applied, read from git's objects. Nothing is checked out.

In: a commit and a difference. Out: contents and hashes of files. Git writes its index and new objects into a temporary
folder, so the repository stays as it is.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from heartml.audit.links import LinkBroken, LinkMissing
from heartml.pipeline import git


class CommitTree:
    """The files of a commit after a difference was applied.

    Args:
        diff: output of `git diff --binary`; empty if nothing differs.
        place: a folder for git's index and objects. It is created.
    """

    def __init__(self, commit: str, diff: bytes, place: Path) -> None:
        self.commit, self._diff, self._place = commit, diff, place

    @cached_property
    def blobs(self) -> Mapping[str, str]:
        """Path -> git's hash of its content.

        Raises:
            LinkMissing: the commit is not in this repository, or git cannot read the repository.
            LinkBroken: the difference does not fit the commit.
        """
        if git.run("cat-file", "-e", f"{self.commit}^{{commit}}").returncode:
            raise LinkMissing(f"commit {self.commit}: {_why_not_here()}")
        self._git("read-tree", self.commit)
        if self._diff:
            done = self._git("apply", "--cached", "--whitespace=nowarn", "-", stdin=self._diff)
            if done.returncode:
                raise LinkBroken(f"code.diff does not fit commit {self.commit[:12]}: {git.first_line(done)}")
        lines = self._git("ls-files", "-s", "-z").stdout.decode("utf-8", "surrogateescape").split("\0")
        entries = [line.partition("\t") for line in lines if line]
        return {path: mode_and_hash.split()[1] for mode_and_hash, _, path in entries}

    def check(self) -> None:
        """Check that the commit is there and the difference fits it; raises as `blobs`."""
        _ = self.blobs

    def below(self, folder: str) -> list[str]:
        """Paths of all files in a folder, or of the file with this path."""
        return [path for path in self.blobs if path == folder or path.startswith(f"{folder}/")]

    def read(self, wanted: list[str]) -> dict[str, bytes]:
        """The contents of these files: path -> bytes."""
        names = "".join(f"{self.blobs[path]}\n" for path in wanted).encode()
        rest, found = self._git("cat-file", "--batch", stdin=names).stdout, {}
        for path in wanted:
            head, _, rest = rest.partition(b"\n")
            size = int(head.split()[2])
            found[path], rest = rest[:size], rest[size + 1:]
        return found

    def md5s(self, wanted: Iterable[str]) -> dict[str, str | None]:
        """DVC's hash of each file or folder (of a folder it ends with `.dir`); `None` if the path does not exist."""
        of = {path: self.below(path) for path in wanted}
        files = sorted({name for names in of.values() for name in names})
        content = {name: _md5(data) for name, data in self.read(files).items()}
        return {path: content[path] if path in content else _folder(path, names, content) for path, names in of.items()}

    @cached_property
    def _environment(self) -> dict[str, str]:
        return git.aside(self._place)

    def _git(self, *command: str, stdin: bytes = b"") -> git.Done:
        return git.run(*command, stdin=stdin, environment=self._environment)


def _why_not_here() -> str:
    words = git.trouble()
    if words:
        return words
    if git.is_shallow():
        return "not in this shallow clone. `git fetch --unshallow` brings older commits"
    return "not in this repository. `git fetch --all`, or ask where it was made"


def _folder(path: str, names: list[str], content: Mapping[str, str]) -> str | None:
    listing = [{"md5": content[name], "relpath": name[len(path) + 1:]} for name in names]
    return folder_md5(listing) if listing else None


def folder_md5(listing: list[dict[str, str]]) -> str:
    """DVC's hash of a folder, from `{"md5": ..., "relpath": ...}` of each file.

    >>> folder_md5([{"md5": "d41d8cd98f00b204e9800998ecf8427e", "relpath": "empty.txt"}])
    '479babe41b3ea37ac2c06314bde9e558.dir'
    """
    text = json.dumps(sorted(listing, key=lambda entry: entry["relpath"]), sort_keys=True)
    return f"{_md5(text.encode())}.dir"


def place_md5(place: Path) -> str:
    """DVC's hash of a file or folder on this disk."""
    if place.is_file():
        return _md5(place.read_bytes())
    files = sorted(path for path in place.rglob("*") if path.is_file())
    return folder_md5([{"md5": _md5(p.read_bytes()), "relpath": p.relative_to(place).as_posix()} for p in files])


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
