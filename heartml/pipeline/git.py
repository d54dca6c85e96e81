"""Runs git for everybody: bytes in, bytes out, the same whatever the user has configured.

In: a command of git. Out: what it printed, at most `MAX_BYTES`.

Options of the user that change an output (colours, an external diff, prefixes, line ends, a global list of ignored
files, hooks, replaced objects) are switched off. So are variables by which a calling program names another repository.
The user's name, `safe.directory` and everything about the network stay as configured.
"""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from heartml.core.system.errors import HeartMLError

MAX_BYTES = 1 << 28
_NO_GIT = 127
_KEPT = frozenset({"GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM", "GIT_EXEC_PATH", "GIT_TEMPLATE_DIR",
                   "GIT_TEST_ASSUME_DIFFERENT_OWNER"})     # and GIT_CONFIG..., which may hold safe.directory
_FIXED = {"LC_ALL": "C", "LANGUAGE": "", "GIT_ATTR_NOSYSTEM": "1", "GIT_OPTIONAL_LOCKS": "0",
          "GIT_TERMINAL_PROMPT": "0"}
_SETTINGS = ("color.ui=false", "core.attributesFile=/dev/null", "core.autocrlf=false", "core.excludesFile=/dev/null",
             "core.fsmonitor=false", "core.hooksPath=/dev/null", "core.quotePath=false", "core.safecrlf=false",
             "core.splitIndex=false", "diff.autoRefreshIndex=true", "apply.ignoreWhitespace=no",
             "i18n.logOutputEncoding=UTF-8", "log.showSignature=false")
_OPTIONS = ("git", "--no-pager", "--no-replace-objects", *(part for one in _SETTINGS for part in ("-c", one)))
# What differs by these is the same for everybody; `PATCH` prints it for `git apply`.
RAW = ("--raw", "-z", "--no-abbrev", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--relative",
       "--ignore-submodules=dirty", "-O/dev/null")
PATCH = ("--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-relative",
         "--src-prefix=a/", "--dst-prefix=b/", "--unified=3", "--inter-hunk-context=0", "--diff-algorithm=myers",
         "--indent-heuristic", "--submodule=short", "--ignore-submodules=dirty", "-O/dev/null")
Done = subprocess.CompletedProcess[bytes]


class GitRefused(HeartMLError):  # noqa: N818 - reads as what happened
    """Git cannot read the repository of this folder. The message says why, and what to do."""


def run(
    *command: str, stdin: bytes = b"", where: Path | None = None, environment: Mapping[str, str] | None = None
) -> Done:
    """Run `git COMMAND` in a folder, by default this one. Exit status 127: git is not installed.

    Args:
        environment: added to the process's own; see `aside`.

    Raises:
        GitRefused: it printed more than `MAX_BYTES`.
    """
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith("GIT_") or name.startswith("GIT_CONFIG") or name in _KEPT}
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as errors:
        given.write(stdin)
        given.seek(0)
        try:
            process = subprocess.Popen([*_OPTIONS, *command], cwd=where, env={**kept, **_FIXED, **(environment or {})},
                                       stdin=given, stdout=subprocess.PIPE, stderr=errors)
        except FileNotFoundError:
            return Done(command, _NO_GIT, b"", b"git is not installed")
        with process:
            assert process.stdout is not None
            printed = process.stdout.read(MAX_BYTES + 1)
            if len(printed) > MAX_BYTES:
                process.kill()
                raise GitRefused(f"git {command[0]}: printed more than {MAX_BYTES:,} bytes. Is a large file or folder "
                                 "in the repository? Name it in .gitignore, or remove it")
        errors.seek(0)
        return Done(command, process.returncode, printed, errors.read(1 << 16))


def output(*command: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> bytes:
    """What `git COMMAND` prints here. Nothing if there is no repository, or if git fails without a word (`--quiet`).

    Raises:
        GitRefused: there is a repository, and the command failed in it.
    """
    done = run(*command, stdin=stdin, environment=environment)
    if done.returncode == 0:
        return done.stdout
    said = first_line(done)
    words = trouble() or (f"git {command[0]}: {said}" if said and not _is_outside(said) else None)
    if words:
        raise GitRefused(words)
    return b""


def line(*command: str) -> str:
    """The one line that `git COMMAND` prints, a name or a path, which may end with a space; raises as `output`."""
    return os.fsdecode(output(*command)).removesuffix("\n")


def trouble(where: Path | None = None) -> str | None:
    """Why git cannot read the repository of a folder, and the way out; `None` if it can, or if there is none."""
    done = run("rev-parse", "--git-dir", where=where)
    said = first_line(done)
    if done.returncode == 0 or _is_outside(said):
        return None
    if done.returncode == _NO_GIT:
        return "git is not installed: install it"
    if "dubious ownership" in said:
        folder = Path(where or ".").resolve()
        return (f"git does not trust this repository, because somebody else owns it: if you do, `git config --global "
                f"--add safe.directory '{folder}'` (the folder that has .git)")
    return f"git cannot read this repository: {said}"


def first_line(done: Done) -> str:
    """The first line of what git said went wrong; empty if it said nothing."""
    said = done.stderr.decode("utf-8", errors="replace").strip().partition("\n")[0]
    return said.removeprefix("fatal: ").removeprefix("error: ")[:300]


def _is_outside(said: str) -> bool:
    return "not a git repository (or any" in said


def is_shallow() -> bool:
    """Whether this repository is a shallow clone, which has no older commits; raises as `output`."""
    return output("rev-parse", "--is-shallow-repository").strip() == b"true"


def aside(place: Path) -> dict[str, str]:
    """An environment in which git writes its index and new objects into `place` and reads this repository's objects.

    The folder is created. The repository, a worktree as well, stays as it is.
    """
    (place / "objects").mkdir(parents=True, exist_ok=True)
    own = str(Path(line("rev-parse", "--git-path", "objects")).resolve())
    quoted = own.replace("\\", "\\\\").replace('"', '\\"')      # a colon would end the path otherwise
    return {"GIT_INDEX_FILE": str(place.resolve() / "index"), "GIT_OBJECT_DIRECTORY": str(place.resolve() / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{quoted}"'}
