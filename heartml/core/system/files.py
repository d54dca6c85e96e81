"""Writing files and folders so that a process killed at any moment leaves the former version whole.

Everything that this project writes goes through here: first to a temporary name beside the target, then a rename.
"""

import atexit
import contextlib
import functools
import io
import json
import os
import platform
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartml.core.system.hashing import sha256
from heartml.core.system.processes import alive

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_REMOVALS = 20
_BETWEEN_REMOVALS_S = 0.05


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of the file `path`; rename it over `path` when the block ends without an error.

    Threads of one process have a temporary file each; the last one to end wins. Temporary files of killed processes are
    removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_orphans(_temporaries(path.parent.resolve()),
                    re.compile(rf"\.{re.escape(path.name)}\.(?:{_machine()}-\d+\.)?(\d+)\.tmp"))
    temporary = path.with_name(f".{path.name}.{_machine()}-{threading.get_native_id()}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)     # a link that somebody left under this name would be written through
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@functools.cache
def _machine() -> str:
    """A short hash of this machine's name. In a shared folder, a process id alone may be that of another machine."""
    return sha256(platform.node().encode())[:8]


@functools.cache
def _temporaries(folder: Path) -> tuple[Path, ...]:
    """Temporary files of the folder when this process first wrote there. Listing a large folder each time is slow."""
    return tuple(folder.glob(".*.tmp"))


def _remove_orphans(found: Iterable[Path], name: re.Pattern[str]) -> None:
    """Remove what matches `name` and whose process, the pattern's first group, no longer runs."""
    for path in found:
        match = name.fullmatch(path.name)
        if match is None or alive(int(match[1])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary sibling of `folder`; it replaces `folder` when the block ends without an error.

    Temporary folders of killed runs are removed first, so the caller must hold the stage's lock.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for orphan in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(orphan)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new folder among the system's temporary ones; it is removed when the block ends, also after an error.

    Folders of killed processes are removed first.

    When the block is interrupted, threads of a library may still write there, and make the folder again (MLflow
    downloads with threads). So the removal is tried several times, and once more when the process ends, because Python
    waits for its threads before that. If it fails, no error is raised that would hide why the block ended.
    """
    _remove_orphans(Path(tempfile.gettempdir()).glob("heartml-*"), re.compile(rf"heartml-{_machine()}-(\d+)-\w+"))
    folder = Path(tempfile.mkdtemp(prefix=f"heartml-{_machine()}-{os.getpid()}-"))
    try:
        yield folder
    except (KeyboardInterrupt, SystemExit):
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        raise
    finally:
        for _ in range(_REMOVALS):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(_BETWEEN_REMOVALS_S)


def remove_folder(folder: Path) -> None:
    """Remove a folder by renaming it first, so that a killed process leaves no half-empty folder under the old name."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    folder.rename(aside)
    shutil.rmtree(aside)


def put_in_place(new: Path, folder: Path) -> None:
    """Replace `folder` by the folder `new`, and remove the former one. On Linux the exchange is one step.

    A process killed at any moment leaves one whole folder there, the former or the new one.
    """
    if not folder.exists():
        new.rename(folder)
        return
    if not _exchange(new, folder):
        aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        folder.rename(aside)
        new.rename(folder)
        new = aside
    shutil.rmtree(new)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths with renameat2(RENAME_EXCHANGE); false where the system has no such call."""
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return call is not None and call(_AT_FDCWD, bytes(first), _AT_FDCWD, bytes(second), _RENAME_EXCHANGE) == 0


def canonical_json(value: object) -> str:
    """JSON that depends on the value alone: sorted keys, two spaces, a final newline.

    Arrays, numbers of numpy and paths are written as JSON has them.

    Raises:
        ValueError: a number is NaN or infinite.
        TypeError: a value is of a type that JSON does not have.

    >>> print(canonical_json({"b": 1, "a": [True, None]}), end="")
    {
      "a": [
        true,
        null
      ],
      "b": 1
    }
    """
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"


def _plain(value: object) -> Any:
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):   # so numpy need not be imported for a check
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} does not go into JSON")


def write_json(path: Path, value: object) -> None:
    """Write `value` as canonical JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(canonical_json(value), encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read one JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_parquet(path: Path, table: "pd.DataFrame", metadata: Mapping[str, str] | None = None) -> None:
    """Write a table without its index, whole or not at all; the same table gives the same bytes.

    Args:
        metadata: is kept in the file beside the table, for instance a hash of what the table was made with.
    """
    with replacing(path) as temporary:
        if not metadata:
            table.to_parquet(temporary, index=False, compression="zstd")
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        whole = pa.Table.from_pandas(table, preserve_index=False)
        pq.write_table(whole.replace_schema_metadata({**whole.schema.metadata, **metadata}), temporary,
                       compression="zstd")


def write_array(path: Path, array: "npt.NDArray[Any]") -> None:
    """Write an array as `.npy`, whole or not at all.

    The array is written to memory first: numpy, given a file, does not notice when the last pages do not fit the disk.
    """
    import numpy as np

    whole = io.BytesIO()
    np.save(whole, array, allow_pickle=False)
    with replacing(path) as temporary:
        temporary.write_bytes(whole.getbuffer())


