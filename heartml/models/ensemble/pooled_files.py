"""Pooled vectors in files: rows of numbers in, an array `[rows, features]` out that is mapped and not read.

Processes that map one file share its pages. So the workers of a search hold the vectors of a million recordings once
among them, and the system may drop pages that nobody reads now.
"""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heartml.core.system import locks
from heartml.core.system.files import replacing

Floats = NDArray[np.float64]


def mapped(file: Path, rows: Iterable[Floats], count: int) -> Floats:
    """The array in `file`, written first where it is not there; other processes that need it wait for that.

    Args:
        rows: `count` vectors `[features]`, one in memory at a time; nothing is taken where the file is there.

    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp()) / "vectors.npy"
    >>> mapped(file, (np.array([n, 10.0 * n]) for n in range(3)), 3)[1].tolist(), mapped(file, (), 3).shape
    ([1.0, 10.0], (3, 2))
    """
    if not file.exists():
        with locks.exclusive(file.with_suffix(".lock")):
            if not file.exists():
                _write(file, rows, count)
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def _write(file: Path, rows: Iterable[Floats], count: int) -> None:
    """Not through mapped memory: there a full disk kills the process."""
    vectors = iter(rows)
    first = next(vectors)
    head = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False, "shape": (count, len(first))}
    with replacing(file) as temporary, temporary.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, head)
        for vector in chain([first], vectors):
            out.write(vector.tobytes())
