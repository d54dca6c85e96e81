"""Compare an output of a stage that was run again with the stored one: same bytes, same numbers, or different.

In: a file or folder, and the hash of the stored one. Out: a `ComparedOutput`.

Numbers count as the same if they differ by no more than `tolerance` times the larger of 1 and their size.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from heartml.audit.links import listed
from heartml.lineage.dvc_objects import ObjectNotFound, Objects

SAME, WITHIN, DIFFERS, GONE = "same bytes", "same numbers", "differs", "gone"
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class ComparedOutput:
    """One output: its path, `same bytes`, `same numbers`, `differs` or `gone`, and what differs, in words."""

    path: str
    state: str
    words: str


class OutputsDiffer(Exception):  # noqa: N818 - reads as what is the case
    """Two files differ in something that is no number. The message says where."""


def compare_output(path: str, stored: str, made: str, here: Path, objects: Objects, tolerance: float) -> ComparedOutput:
    """Compare one output with the stored one.

    Args:
        path: of the output in the project.
        stored, made: DVC's hashes of the stored output and of the new one; `made` is empty if there is none.
        here: the new output on this disk.
        tolerance: see the head of this module.
    """
    if made == stored:
        return ComparedOutput(path, SAME, "")
    if not made:
        return ComparedOutput(path, GONE, "no stage made it")
    try:
        before = objects.listing(stored) if stored.endswith(".dir") else {"": stored}
        after = {p.relative_to(here).as_posix(): p for p in here.rglob("*") if p.is_file()} if here.is_dir() else {
            "": here}
        return _files(path, before, after, objects, tolerance)
    except ObjectNotFound as gone:
        return ComparedOutput(path, DIFFERS, f"other bytes, and the stored ones cannot be compared: {gone}")


def _files(path: str, before: Mapping[str, str], after: Mapping[str, Path], objects: Objects,
           tolerance: float) -> ComparedOutput:
    wrong = [f"{name}: {'only stored' if name in before else 'only made now'}" for name in sorted({*before} ^ {*after})]
    most = 0.0
    for name in sorted({*before} & {*after}):
        try:
            most = max(most, largest_difference(name or path, objects.read(before[name]), after[name].read_bytes()))
        except (OutputsDiffer, ValueError, KeyError, TypeError) as error:
            wrong.append(f"{name or path}: {error}")
    if wrong or most > tolerance:
        return ComparedOutput(path, DIFFERS, listed(wrong) or f"numbers differ by up to {most:.2g}")
    return ComparedOutput(path, WITHIN, f"numbers differ by at most {most:.2g}")


def largest_difference(name: str, before: bytes, after: bytes) -> float:
    """The largest difference between the numbers of two files, relative to the larger of 1 and their size.

    Args:
        name: of the file. Its suffix says how it is read.

    Raises:
        OutputsDiffer: something that is no number differs, or one file has more numbers.

    >>> largest_difference("metrics.json", b'{"uar": 0.5}', b'{"uar": 0.75}')
    0.25
    """
    if before == after:
        return 0.0
    return _READERS.get(Path(name).suffix, _texts)(before, after)


def _numbers(before: Any, after: Any) -> float:
    one, other = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if one.shape != other.shape:
        raise OutputsDiffer(f"shape {other.shape}, stored {one.shape}")
    finite = np.isfinite(one) & np.isfinite(other)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        raise OutputsDiffer("numbers are missing or infinite in other places")
    gap = np.abs(one[finite] - other[finite]) / np.maximum(1.0, np.abs(one[finite]))
    return float(gap.max(initial=0.0))


def _json(before: bytes, after: bytes) -> float:
    return _values(json.loads(before), json.loads(after), "")


def _values(before: Any, after: Any, place: str) -> float:
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        return max((_values(before[key], after[key], f"{place}.{key}") for key in before), default=0.0)
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return max((_values(b, a, f"{place}[{n}]") for n, (b, a) in enumerate(zip(before, after, strict=True))),
                   default=0.0)
    if _is_number(before) and _is_number(after):
        return _numbers(before, after)
    if before == after:
        return 0.0
    raise OutputsDiffer(f"{place.lstrip('.')}: {str(after)[:60]}, stored {str(before)[:60]}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _parquet(before: bytes, after: bytes) -> float:
    import pandas as pd

    one, other = pd.read_parquet(BytesIO(before)), pd.read_parquet(BytesIO(after))
    if list(one) != list(other) or len(one) != len(other):
        raise OutputsDiffer(f"{len(other)} rows of {len(list(other))} columns, stored {len(one)} of {len(list(one))}")
    most = 0.0
    for column in one:
        if pd.api.types.is_numeric_dtype(one[column]) and pd.api.types.is_numeric_dtype(other[column]):
            most = max(most, _numbers(one[column].to_numpy(float, na_value=np.nan),
                                      other[column].to_numpy(float, na_value=np.nan)))
        elif not one[column].equals(other[column]):
            raise OutputsDiffer(f"column {column} differs")
    return most


def _safetensors(before: bytes, after: bytes) -> float:
    from safetensors.numpy import load

    return _arrays(load(before), load(after))


def _npy(before: bytes, after: bytes) -> float:
    return _numbers(np.load(BytesIO(before), allow_pickle=False), np.load(BytesIO(after), allow_pickle=False))


def _arrays(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    if before.keys() != after.keys():
        raise OutputsDiffer(f"arrays {listed(sorted(before.keys() ^ after.keys()))} on one side alone")
    return max((_numbers(before[key], after[key]) for key in before), default=0.0)


def _texts(before: bytes, after: bytes) -> float:
    """For text that contains numbers: pages, tables, trees."""
    one, other = before.decode("utf-8"), after.decode("utf-8")
    if _NUMBER.sub("#", one) != _NUMBER.sub("#", other):
        raise OutputsDiffer("its words differ")
    return _numbers([float(n) for n in _NUMBER.findall(one)], [float(n) for n in _NUMBER.findall(other)])


_READERS: Mapping[str, Callable[[bytes, bytes], float]] = {
    ".json": _json, ".parquet": _parquet, ".safetensors": _safetensors, ".npy": _npy,
}
