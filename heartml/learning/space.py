"""What the search may try: the plan of slots, the starts that come first, and the space that Optuna draws from.

Slots of the sequence head are planned, not drawn, because one costs as much as all others together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from heartml.config import SearchParams, StartParams
from heartml.errors import HeartMLError
from heartml.heads import HEADS, Numbers
from heartml.learning.members import Level, Spec
from heartml.learning.pooling import POOLINGS
from heartml.tasks import Task

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Slot:
    """One trial of the plan: what must be known before Optuna is asked."""

    number: int
    sequence: bool
    start: StartParams | None


class SearchError(HeartMLError):
    """The search's parameters name something that is not there; the message says what there is."""


def check(params: SearchParams, encoders: Sequence[str]) -> None:
    """Heads, poolings and starts are known.

    Raises:
        SearchError: naming the first one that is not.
    """
    missing = [encoder for encoder in encoders if not params.poolings.get(encoder)]
    if missing:
        raise SearchError(f"search.poolings: nothing for encoder {missing[0]}. Give it some of {', '.join(POOLINGS)}.")
    for encoder, names in params.poolings.items():
        _known(f"search.poolings.{encoder}", names, POOLINGS)
    _known("search.heads", params.heads, HEADS)
    if all(HEADS[head]().TAKES == "frames" for head in params.heads):
        raise SearchError("search.heads: at least one head that takes pooled vectors is needed")
    for number, start in enumerate(params.starts):
        where = f"search.starts[{number}]"
        _known(f"{where}.head", [start.head], HEADS)
        if (start.pooling is None) != (HEADS[start.head]().TAKES == "frames"):
            raise SearchError(f"{where}: head {start.head} takes {HEADS[start.head]().TAKES}, pooling {start.pooling}")
        if start.pooling is not None:
            _known(f"{where}.pooling", [start.pooling], params.poolings.get(start.encoder, ()))
        ranges = numbers_of(start.head)
        _known(f"{where}.numbers", start.numbers, ranges)
        for name, figure in start.numbers.items():
            low, high = ranges[name]
            if not low <= figure <= high:
                raise SearchError(f"{where}.numbers: {name} {figure:g} lies outside of {low:g} to {high:g}")


def _known(where: str, names: Iterable[str], known: Iterable[str]) -> None:
    strange = sorted(set(names) - set(known))
    if strange:
        raise SearchError(f"{where}: {strange[0]!r} is not known, there are {', '.join(known)}")


def numbers_of(head: str) -> dict[str, tuple[float, float]]:
    """Names and ranges of the numbers in a head's search space."""
    ranges = _Ranges({})
    HEADS[head]().space(ranges)
    return ranges.found


@dataclass(frozen=True)
class _Ranges:
    """A trial that notes the ranges it is asked about."""

    found: dict[str, tuple[float, float]]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.found[name] = (low, high)
        return low

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        self.found[name] = (low, high)
        return low


def plan(params: SearchParams, encoders: Sequence[str]) -> list[list[Slot]]:
    """Batches of slots: all starts that are enabled first, then `params.batch` at a time, `params.trials` in all."""
    possible = "sequence" in params.heads and bool(set(params.sequence.encoders) & set(encoders))
    sequences = params.sequence_trials if possible else 0
    starts = [s for s in params.starts if s.encoder in encoders and s.head in params.heads]
    frames = [s for s in starts if s.head == "sequence" and s.encoder in params.sequence.encoders][:sequences]
    starts = [*frames, *(s for s in starts if s.head != "sequence")][: params.trials]
    more = sequences - len(frames)
    slots = [Slot(number, s in frames, s) for number, s in enumerate(starts)]
    slots += [Slot(number, number - len(starts) < more, None) for number in range(len(starts), params.trials)]
    later = range(len(starts), len(slots), params.batch)
    return [batch for batch in [slots[: len(starts)], *(slots[i : i + params.batch] for i in later)] if batch]


def fixed(slot: Slot, task: Task) -> dict[str, Any]:
    """A start as Optuna parameters, under the names that `suggest` uses."""
    start = slot.start
    assert start is not None
    numbers = {f"{start.head}.{name}": value for name, value in start.numbers.items()}
    if slot.sequence:
        return {f"{start.head}.encoder": start.encoder, **numbers}
    level = start.level if task.unit == "patient" else "recording"
    return {"encoder": start.encoder, "level": level, f"{start.encoder}.pooling": start.pooling, "head": start.head,
            **numbers}


class _Named:
    """A trial whose numbers are named after the head, so that heads do not share a distribution."""

    def __init__(self, trial: "optuna.Trial", head: str) -> None:
        self.trial, self.head = trial, head

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return self.trial.suggest_float(f"{self.head}.{name}", low, high, log=log)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return self.trial.suggest_int(f"{self.head}.{name}", low, high, log=log)


def suggest(trial: "optuna.Trial", slot: Slot, params: SearchParams, task: Task, encoders: Sequence[str]) -> Spec:
    """The search space: encoder x level x pooling x head x the head's own numbers."""
    if slot.sequence:
        encoder = trial.suggest_categorical("sequence.encoder", [e for e in params.sequence.encoders if e in encoders])
        fixed = params.sequence.model_dump(exclude={"encoders"})
        numbers: Numbers = {**HEADS["sequence"]().space(_Named(trial, "sequence")), **fixed}
        return Spec(encoder, "sequence", "recording", None, numbers)
    encoder = trial.suggest_categorical("encoder", list(encoders))
    levels = ["recording", "unit"] if task.unit == "patient" else ["recording"]
    level = cast(Level, trial.suggest_categorical("level", levels))
    pooling = trial.suggest_categorical(f"{encoder}.pooling", list(params.poolings[encoder]))
    head = trial.suggest_categorical("head", [h for h in params.heads if HEADS[h]().TAKES == "vectors"])
    return Spec(encoder, head, level, pooling, HEADS[head]().space(_Named(trial, head)))


def derive(seed: int, *places: int) -> int:
    """A seed for one place: slot, or slot and fold."""
    return int(np.random.SeedSequence([seed, *places]).generate_state(1)[0])
