"""Errors of the machine, such as a full disk, a read-only folder or a lost connection, as one line with the way out.

Libraries wrap such errors in their own, so the whole chain of causes is searched. Classes are compared by name, because
most of those libraries are not imported when nothing has failed.
"""

import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path

_AGAIN = "Nothing that is done is lost: {}, then run it again"
_FULL = "no space left on the disk", _AGAIN.format("free some (`df -h` shows where)")
_READ_ONLY = "the file system is read-only", _AGAIN.format("make it writable")
_FORBIDDEN = "permission denied", _AGAIN.format("ask the owner, or use a folder of yours")
_BROKEN = "the disk cannot be read or written (full, or broken)", _AGAIN.format("see `df -h` and the system's log")
_LOCKED = "another process keeps the database locked", _AGAIN.format("wait for it")
_MEMORY = "not enough memory", _AGAIN.format("end something else, or use a larger machine")
_AWAY = "a connection was lost or refused", _AGAIN.format("see that the service is up")
_PROBE_BYTES = 1 << 20     # a database needs at least this much
_Words = tuple[str, str]
_BY_NUMBER: dict[int, _Words] = {
    errno.ENOSPC: _FULL, errno.EDQUOT: ("your quota of the disk is used up", _AGAIN.format("free some")),
    errno.EROFS: _READ_ONLY, errno.EACCES: _FORBIDDEN, errno.EPERM: _FORBIDDEN, errno.EIO: _BROKEN,
    errno.EMFILE: ("too many files are open at once", _AGAIN.format("raise the limit (ulimit -n)")),
}
_BY_TEXT: dict[str, _Words] = {     # where a library passes on only the text
    "No space left on device": _FULL, "database or disk is full": _FULL,
    "requested and ": _FULL,        # numpy, of an array: "25056 requested and 10176 written"
    "Disk quota exceeded": _BY_NUMBER[errno.EDQUOT],
    "Read-only file system": _READ_ONLY, "attempt to write a readonly database": _READ_ONLY,
    "unable to open database file": ("a database cannot be opened", _AGAIN.format("see that its folder is writable")),
    "No usable temporary directory": ("no folder for temporary files can be written (full, or broken)", _FULL[1]),
    "disk I/O error": _BROKEN, "database is locked": _LOCKED,
}
_BY_NAME: dict[str, _Words] = {
    "builtins.MemoryError": _MEMORY,
    "concurrent.futures.process.BrokenProcessPool": ("a worker process was killed (out of memory?)", _MEMORY[1]),
}
_OF_THE_NETWORK = frozenset({
    "builtins.ConnectionError", "builtins.TimeoutError", "urllib.error.URLError", "http.client.HTTPException",
    "requests.exceptions.RequestException", "httpx.TransportError", "sqlalchemy.exc.OperationalError",
    "sqlalchemy.exc.InterfaceError", "botocore.exceptions.HTTPClientError", "psycopg.OperationalError",
})


def explain(error: BaseException) -> str | None:
    """One line if the machine or the network caused the error; `None` if the fault may be in this project."""
    chain = list(_chain(error))
    for one in chain:
        words = _of_machine(one)
        if words:
            return words
    lost = next((one for one in chain if _is_of_network(one)), None)
    return _line(_AWAY, str(lost).strip().partition("\n")[0]) if lost else None


def is_interruption(error: BaseException) -> bool:
    """Whether the error is a consequence of an interruption (Ctrl-C), and need not be shown."""
    return any(isinstance(one, KeyboardInterrupt) for one in _chain(error))


def explain_unwritable(folder: Path) -> str | None:
    """One line if nothing can be written into `folder` now. This may be the cause of a server's error 500."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        return explain(error)
    return None


def is_lost_connection(error: BaseException) -> bool:
    """Whether a lost or refused connection, or a busy database, caused the error."""
    return any(map(_is_of_network, _chain(error)))


def _is_of_network(error: BaseException) -> bool:
    return not _OF_THE_NETWORK.isdisjoint(_names(error))


def _names(error: BaseException) -> list[str]:
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]


def _of_machine(error: BaseException) -> str | None:
    known = next((_BY_NAME[name] for name in _names(error) if name in _BY_NAME), None)
    if known:
        return _line(known, "")
    if isinstance(error, OSError) and error.errno in _BY_NUMBER:
        return _line(_BY_NUMBER[error.errno], str(error.filename or ""))
    text = str(error)
    return next((_line(words, "") for sign, words in _BY_TEXT.items() if sign in text), None)


def _line(words: _Words, where: str) -> str:
    what, way_out = words
    return f"{what}{f' ({where})' if where else ''}. {way_out}."


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, its causes, and the members of exception groups, each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
