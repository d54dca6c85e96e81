"""Who is trained on and who is tested: the published split where it lies in the folder, else one drawn by persons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heartml.core.stage import StageError
from heartml.data.splitting import group_split
from heartml.data.splitting.published import read_parts
from heartml.evaluation.protocols.opera import cases
from heartml.evaluation.protocols.opera.cases import Case, LeftOutError
from heartml.evaluation.protocols.opera.tasks import BenchmarkTask, NamedSplit, stem

TRAIN, VALIDATION, TEST = "train", "validation", "test"
_WORDS = {"train": TRAIN, "val": VALIDATION, "validation": VALIDATION, "test": TEST}
_TEST_SHARE = 0.2
_VALIDATION_SEED = 1337        # the benchmark's, for its validation parts


@dataclass(frozen=True)
class Split:
    """The part of each case.

    Attributes:
        kind: `published` or `drawn`.
        words: where it is from, in a sentence.
        parts: case -> part; cases that the published split does not name are not there.
        crossing: groups of the test part that are in training too, which a published split may do.
    """

    kind: str
    words: str
    parts: Mapping[Case, str]
    crossing: frozenset[str]


def of(task: BenchmarkTask, folder: Path, place: Path, read: Sequence[Case], seed: int) -> Split:
    """The split of a task.

    Args:
        folder: that holds the collections.
        place: the task's collection.

    Raises:
        LeftOutError: a file of the published split cannot be used.
    """
    named, words = _published(task, folder, place)
    if named is None:
        shares = {TEST: _TEST_SHARE, VALIDATION: (1 - _TEST_SHARE) * task.validation_share}
        shares[TRAIN] = 1 - sum(shares.values())
        drawn = group_split.draw(group_split.group_table(cases.table(read, {})), shares, seed, held_out=TEST)
        return Split("drawn", f"{words}: parts drawn by persons", {case: drawn[case.group] for case in read},
                     frozenset())
    used = {key: part for key, part in named.items() if part in (TRAIN, VALIDATION, TEST)}     # a list may say `unused`
    parts = {case: used[key] for case in read if (key := task.key(case.source_file)) in used}
    if VALIDATION not in parts.values():
        parts = _with_validation(task, parts)
    tests = {case.group for case, part in parts.items() if part == TEST}
    crossing = tests & {case.group for case, part in parts.items() if part != TEST}
    return Split("published", words, parts, frozenset(crossing))


def _published(task: BenchmarkTask, folder: Path, place: Path) -> tuple[Mapping[str, str] | None, str]:
    """Name of a recording -> part, and where that is from, or what is missing.

    Raises:
        LeftOutError: a file of the split cannot be used.
    """
    if task.list_file is not None:
        path = next((one for one in (place / task.list_file, folder / task.list_file) if one.is_file()), None)
        if path is None:
            return None, f"no {task.list_file} in {place}"
        try:
            found = read_parts(path)
        except StageError as error:
            raise LeftOutError(str(error)) from None
        return {str(name): str(part) for name, part in found.items()}, f"published split {task.list_file}"
    assert task.split is not None
    split = task.split
    place = next((one for one in (folder / split.folder, place) if (one / split.names).is_file()), folder)
    if not (place / split.names).is_file() or not (place / split.parts).is_file():
        return None, f"no {split.folder}/{split.names} and {split.parts} in {folder}"
    return _from_arrays(task, split, place), f"published split {split.parts}"


def _from_arrays(task: BenchmarkTask, split: NamedSplit, place: Path) -> dict[str, str]:
    """The split of two files of numpy.

    Raises:
        LeftOutError: they hold no text, differ in length, or have a part that is none.
    """
    lists = []
    for name in (split.names, split.parts):
        try:
            lists.append([str(one) for one in _array(place / name).ravel()])
        except (ValueError, OSError, EOFError) as error:
            raise LeftOutError(f"{place / name}: no array of texts ({str(error)[:120]})") from None
    names, parts = lists
    wrong = next((part for part in parts if part not in _WORDS), None)
    if len(names) != len(parts) or wrong is not None:
        raise LeftOutError(f"{place / split.parts}: {len(parts)} parts of {len(names)} recordings"
                           + (f", and {wrong!r} is none of {', '.join(_WORDS)}" if wrong is not None else ""))
    found: dict[str, str] = {}
    for name, part in zip((task.key(name.replace("\\", "/")) for name in names), parts, strict=True):
        if found.setdefault(name, _WORDS[part]) != _WORDS[part]:
            raise LeftOutError(f"{place / split.parts}: {name} is in two parts, {found[name]} and {_WORDS[part]}")
    return found


def _array(path: Path) -> NDArray[np.generic]:
    """The array in a file of numpy.

    Raises:
        ValueError: it is none, or an archive of several.
    """
    with path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _with_validation(task: BenchmarkTask, parts: Mapping[Case, str]) -> dict[Case, str]:
    """Some of the training cases become the validation part: drawn by case and class, with the benchmark's seed.

    The benchmark does not draw it by persons. It chooses the epoch, and is never scored.

    Raises:
        LeftOutError: there are too few training cases.
    """
    from sklearn.model_selection import train_test_split

    training = sorted((case for case, part in parts.items() if part == TRAIN), key=lambda case: (stem(case.source_file),
                                                                                                 case.name))
    labels = [case.label for case in training]
    if min(labels.count(label) for label in set(labels) or {""}) < 2 or len(training) * task.validation_share < 2:
        raise LeftOutError(f"{len(training)} training cases are too few for a validation part")
    _, chosen = train_test_split(training, test_size=task.validation_share, random_state=_VALIDATION_SEED,
                                 stratify=labels)
    return {case: VALIDATION if case in set(chosen) else part for case, part in parts.items()}


def refuse_one_class(task: BenchmarkTask, kept: Sequence[Case], split: Split) -> None:
    """Check that training and test have two classes at least.

    Raises:
        LeftOutError: one of them has not.
    """
    for part in (TRAIN, TEST):
        labels = {case.label for case in kept if split.parts[case] == part}
        if len(labels) < 2:
            raise LeftOutError(f"two classes are needed in the {part} part, and there is "
                               f"{' and '.join(sorted(labels)) or 'no case'} ({split.words})")
