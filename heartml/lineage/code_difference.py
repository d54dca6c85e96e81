"""The difference between the commit and the working tree, as a run keeps it: the code, and never data.

In: the working tree. Out: the difference as bytes for `git apply`, and what was left out of it, by name.

A run is kept for years and is read by others. So data folders, recordings, tables, archives, binary files and large
files stay out of it. A new folder that holds a recording is somebody's data, and stays out as a whole.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heartml.audio.containers import SUFFIXES
from heartml.core import paths
from heartml.core.system.files import temporary_folder
from heartml.pipeline import git

DVC_LOCK = "dvc.lock"     # the run keeps the file itself
MAX_FILE_BYTES, MAX_BYTES = 1 << 20, 1 << 24
_NAMED = 50               # entries of what was left out; the rest is counted
_SEVERAL = 4              # from so many files in one folder on, they are one entry
_DATA = frozenset(str(folder) for folder in (paths.DATA, paths.ARTIFACTS, paths.REPORTS, paths.STATE)) | {"mlruns"}
_RECORDINGS = frozenset((*SUFFIXES, ".hea", ".dat", ".mat", ".edf", ".dcm", ".raw", ".pcm"))    # these are not decoded
_TABLES = frozenset((".csv", ".tsv", ".xlsx", ".xls", ".xlsm", ".ods", ".parquet", ".feather", ".sqlite", ".db"))
_ARCHIVES = frozenset((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"))
_DATA_FOLDER, _WITH_RECORDINGS, _RECORDING = "a data folder", "a new folder with recordings", "a recording"
_TABLE, _ARCHIVE, _BINARY, _REPOSITORY = "a table", "an archive", "a new binary file", "a repository of its own"
_LARGE, _FULL = "larger than 1 MiB", "the difference would be larger than 16 MiB"


@dataclass(frozen=True)
class CodeDifference:
    """How the working tree differs from a commit.

    Attributes:
        diff: for `git apply`; empty if nothing differs.
        left_out: path -> why it is not in `diff`; a folder's path ends with a slash.
    """

    diff: bytes
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class _Changed:
    """One changed file: its size in bytes (the larger of then and now), and whether the commit lacks it."""

    path: str
    bytes: int
    new: bool


def read(commit: str) -> CodeDifference:
    """The difference of this folder to `commit`. The user's index stays as it is.

    Raises:
        GitRefused: git cannot read the repository, or a changed file.
    """
    left_out = _new_folders_of_data()
    changed = [one for one in _changed(commit) if one.path != DVC_LOCK and not _below(one.path, left_out)]
    kept, room = [], MAX_BYTES
    for one in sorted(changed, key=lambda one: one.path):
        why = _why_not(one) or (_FULL if one.bytes > room else "")
        if why:
            left_out[one.path] = why
        else:
            kept.append(one.path)
            room -= one.bytes
    return CodeDifference(_diff(commit, kept) if kept else b"", left_out)


def uncommitted(files: Sequence[str]) -> list[str]:
    """Those of these files that are new, or differ from the commit; not what .gitignore names.

    Raises:
        GitRefused: git cannot read the repository.
    """
    commit = git.line("rev-parse", "--verify", "--quiet", "HEAD")
    changed = _names("diff", *git.RAW, commit, "--", *files)[1::2] if commit else []
    staged = [] if commit else _names("ls-files", "-z", "--", *files)
    return sorted({*changed, *staged, *_names("ls-files", "--others", "--exclude-standard", "-z", "--", *files)})


def in_words(left_out: Mapping[str, str]) -> list[str]:
    """What was left out, one entry each: several files of one folder are one entry, and entries after 50 are counted.

    >>> in_words({"notes/a.wav": "a recording", "x.bin": "a new binary file"})
    ['notes/a.wav: a recording', 'x.bin: a new binary file']
    >>> in_words({f"notes/{number}.wav": "a recording" for number in range(832)})
    ['notes/ (832 files): a recording each']
    """
    counts = Counter((path.rpartition("/")[0], why) for path, why in left_out.items() if not path.endswith("/"))
    words: dict[str, None] = {}
    for path, why in left_out.items():
        folder = path.rpartition("/")[0]
        count = counts[folder, why] if not path.endswith("/") else 0
        text = f"{folder or '.'}/ ({count:,} files): {why} each" if count >= _SEVERAL else f"{path}: {why}"
        words[text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")] = None
    more = [f"and {len(words) - _NAMED:,} more"] if len(words) > _NAMED else []
    return [*list(words)[:_NAMED], *more]


def _below(path: str, folders: Collection[str]) -> bool:
    parts = path.split("/")
    return any("/".join(parts[:depth]) + "/" in folders for depth in range(1, len(parts) + 1))


def _why_not(one: _Changed) -> str:
    """Why a file stays out; empty if it is kept. A table in `splits/` is an input that people write."""
    path = Path(one.path)
    kind, top = path.suffix.lower(), path.parts[0]
    reasons = {
        _DATA_FOLDER: top in _DATA,
        _REPOSITORY: one.path.endswith("/"),
        _RECORDING: kind in _RECORDINGS,
        _TABLE: kind in _TABLES and top != str(paths.SPLITS),
        _ARCHIVE: kind in _ARCHIVES,
        _LARGE: one.bytes > MAX_FILE_BYTES,
        _BINARY: one.new and _is_binary(path),
    }
    return next((why for why, holds in reasons.items() if holds), "")


def _is_binary(path: Path) -> bool:
    """As git decides it: whether there is a zero among the first bytes."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"\0" in file.read(8000)


def _new_folders_of_data() -> dict[str, str]:
    """Folders without any file of the commit that are data: path with a slash at its end -> why."""
    found = {}
    for folder in _names("ls-files", "--others", "--exclude-standard", "--directory", "-z"):
        if folder.endswith("/"):
            why = _DATA_FOLDER if folder.split("/")[0] in _DATA else _WITH_RECORDINGS if _has_sound(folder) else ""
            if why:
                found[folder] = why
    return found


def _has_sound(folder: str) -> bool:
    return any(Path(name).suffix.lower() in _RECORDINGS
               for name in _names("--literal-pathspecs", "ls-files", "--others", "--exclude-standard", "-z", "--",
                                  folder))


def _changed(commit: str) -> Iterator[_Changed]:
    """Every file that differs from the commit, and every new one that .gitignore does not name; paths from here."""
    fields = _names("diff", *git.RAW, commit, "--", ".")
    listed = [(path, head.split()[2]) for head, path in zip(fields[::2], fields[1::2], strict=True)]
    sizes = _sizes([blob for _, blob in listed])
    seen = set()
    for path, blob in listed:
        if path not in seen:
            seen.add(path)
            yield _Changed(path, max(sizes.get(blob, 0), _size(path)), new=not blob.strip("0"))
    for path in _names("ls-files", "--others", "--exclude-standard", "-z"):
        if path not in seen:
            yield _Changed(path, _size(path), new=True)


def _size(path: str) -> int:
    try:
        return Path(path).lstat().st_size
    except OSError:      # removed, or part of a folder that became a file
        return 0


def _sizes(blobs: list[str]) -> dict[str, int]:
    """Git's hash of a content -> its size in bytes."""
    asked = "".join(f"{blob}\n" for blob in blobs if blob.strip("0")).encode()
    lines = git.output("cat-file", "--batch-check", stdin=asked).decode().splitlines() if asked else []
    return {line.split()[0]: int(line.split()[2]) for line in lines if len(line.split()) == 3}


def _names(*command: str) -> list[str]:
    return [name.decode("utf-8", "surrogateescape") for name in git.output(*command).split(b"\0") if name]


def _diff(commit: str, wanted: list[str]) -> bytes:
    """The difference of these files, from an index and objects of its own."""
    with temporary_folder() as folder:
        environment = git.aside(folder)
        names = b"".join(path.encode("utf-8", "surrogateescape") + b"\0" for path in wanted)
        for command, stdin in ((("read-tree", commit), b""),
                               (("update-index", "-z", "--add", "--remove", "--replace", "--stdin"), names)):
            done = git.run(*command, stdin=stdin, environment=environment)
            if done.returncode:
                raise git.GitRefused(f"git cannot read the code of this folder: {git.first_line(done)}. Make it "
                                     "readable, or name it in .gitignore")
        return git.output("diff", "--cached", *git.PATCH, commit, environment=environment)
