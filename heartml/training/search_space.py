"""What the search may try: the plan of slots, the starts that come first, and the space that Optuna draws from.

Slots of heads that are networks are planned, not drawn: one costs as much as all pooled heads together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from heartml.core.config import InitialTrialParams, SearchParams
from heartml.core.system.errors import HeartMLError
from heartml.core.tasks import Task
from heartml.models import encoders as encoders_family
from heartml.models.ensemble.candidate import CandidateSpec, Level
from heartml.models.heads import HEADS, Hyperparameters
from heartml.models.heads.network_params import network_params, training_params
from heartml.models.pooling import POOLINGS

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Slot:
    """One trial of the plan: what must be known before Optuna is asked. `network`: its head, if that takes frames."""

    number: int
    network: str | None
    start: InitialTrialParams | None


class SearchError(HeartMLError):
    """The search's parameters name something that is not there; the message says what there is."""


def check(params: SearchParams, encoders: Sequence[str]) -> None:
    """Heads, poolings and starts are known.

    Raises:
        SearchError: naming the first one that is not.
    """
    for encoder, names in params.poolings.items():
        _known(f"search.poolings.{encoder}", names, POOLINGS)
    _known("search.heads", params.heads, HEADS)
    if set(networks(params)) == set(params.heads):
        raise SearchError("search.heads: at least one head that takes pooled vectors is needed")
    _known("search.network_trials", params.network_trials, [head for head in HEADS if HEADS[head]().TAKES == "frames"])
    _check_encoders(params, encoders)
    _check_initial_trials(params)
    for head in networks(params):
        network_params(head, params).check()


def _check_encoders(params: SearchParams, encoders: Sequence[str]) -> None:
    heard = {encoder for head in networks(params) for encoder in network_params(head, params).encoders}
    missing = [encoder for encoder in encoders if not poolings_of(encoder, params) and encoder not in heard]
    if missing:
        raise SearchError(f"search.poolings: nothing for encoder {missing[0]}. Give it some of {', '.join(POOLINGS)}.")
    if not pooled(params, encoders):
        raise SearchError(f"search.poolings: nothing for any of {', '.join(encoders)}, which pooled heads need")
    for head in networks(params):
        own = network_params(head, params).encoders
        if params.network_trials.get(head) and not set(own) & set(encoders):
            raise SearchError(f"search.heads: {head} hears {' or '.join(own)}. Add that to `encoders`.")


def _check_initial_trials(params: SearchParams) -> None:
    for number, start in enumerate(params.initial_trials):
        where = f"search.initial_trials[{number}]"
        _known(f"{where}.head", [start.head], HEADS)
        if (start.pooling is None) != (HEADS[start.head]().TAKES == "frames"):
            raise SearchError(f"{where}: head {start.head} takes {HEADS[start.head]().TAKES}, pooling {start.pooling}")
        if start.pooling is not None:
            _known(f"{where}.pooling", [start.pooling], poolings_of(start.encoder, params))
        ranges = hyperparameter_ranges(start.head)
        _known(f"{where}: hyperparameters", start.hyperparameters, ranges)
        for name, figure in start.hyperparameters.items():
            low, high = ranges[name]
            if not low <= figure <= high:
                raise SearchError(f"{where}: hyperparameters: {name} {figure:g} lies outside of {low:g} to {high:g}")


def _known(where: str, names: Iterable[str], known: Iterable[str]) -> None:
    strange = sorted(set(names) - set(known))
    if strange:
        raise SearchError(f"{where}: {strange[0]!r} is not known, there are {', '.join(known)}")


def hyperparameter_ranges(head: str) -> dict[str, tuple[float, float]]:
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


def networks(params: SearchParams) -> list[str]:
    """The heads that take frames, among those that are enabled."""
    return [head for head in params.heads if HEADS[head]().TAKES == "frames"]


def poolings_of(encoder: str, params: SearchParams) -> tuple[str, ...]:
    """The poolings that are tried for an encoder: those of `search.poolings`, or else those that it names itself."""
    return params.poolings[encoder] if encoder in params.poolings else encoders_family.member(encoder).POOLINGS


def pooled(params: SearchParams, encoders: Sequence[str]) -> list[str]:
    """The encoders whose frames are pooled for the heads that take vectors."""
    return [encoder for encoder in encoders if poolings_of(encoder, params)]


def plan(params: SearchParams, encoders: Sequence[str]) -> list[list[Slot]]:
    """Batches of slots: all starts that are enabled first, then `params.batch` at a time, `params.trials` in all."""
    enabled = [s for s in params.initial_trials if s.encoder in encoders and s.head in params.heads]
    first: list[tuple[str | None, InitialTrialParams]] = []
    more: list[str | None] = []
    for head in networks(params):
        own = set(network_params(head, params).encoders) & set(encoders)
        wanted = params.network_trials.get(head, 0) if own else 0
        mine = [s for s in enabled if s.head == head and s.encoder in own][:wanted]
        first += [(head, s) for s in mine]
        more += [head] * (wanted - len(mine))
    first += [(None, s) for s in enabled if s.head not in networks(params)]
    starts = first[: params.trials]
    left = params.trials - len(starts)
    rest = [*more, *[None] * left][:left]
    slots = [Slot(number, head, s) for number, (head, s) in enumerate(starts)]
    slots += [Slot(len(starts) + number, head, None) for number, head in enumerate(rest)]
    later = range(len(starts), len(slots), params.batch)
    return [batch for batch in [slots[: len(starts)], *(slots[i : i + params.batch] for i in later)] if batch]


def fixed(slot: Slot, task: Task) -> dict[str, Any]:
    """A start as Optuna parameters, under the names that `suggest` uses."""
    start = slot.start
    assert start is not None
    hyperparameters = {f"{start.head}.{name}": value for name, value in start.hyperparameters.items()}
    if slot.network:
        return {f"{start.head}.encoder": start.encoder, **hyperparameters}
    level = start.level if task.unit == "patient" else "recording"
    return {"encoder": start.encoder, "level": level, f"{start.encoder}.pooling": start.pooling, "head": start.head,
            **hyperparameters}


class _Named:
    """A trial whose numbers are named after the head, so that heads do not share a distribution."""

    def __init__(self, trial: "optuna.Trial", head: str) -> None:
        self.trial, self.head = trial, head

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return self.trial.suggest_float(f"{self.head}.{name}", low, high, log=log)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return self.trial.suggest_int(f"{self.head}.{name}", low, high, log=log)


def suggest(trial: "optuna.Trial", slot: Slot, params: SearchParams, task: Task,
            encoders: Sequence[str]) -> CandidateSpec:
    """The search space: encoder x level x pooling x head x the head's own hyperparameters."""
    if slot.network:
        heard = [e for e in network_params(slot.network, params).encoders if e in encoders]
        encoder = trial.suggest_categorical(f"{slot.network}.encoder", heard)
        hyperparameters = HEADS[slot.network]().space(_Named(trial, slot.network))
        return CandidateSpec(encoder, slot.network, "recording", None,
                             {**hyperparameters, **fixed_hyperparameters(params, slot.network)})
    encoder = trial.suggest_categorical("encoder", pooled(params, encoders))
    levels = ["recording", "unit"] if task.unit == "patient" else ["recording"]
    level = cast(Level, trial.suggest_categorical("level", levels))
    pooling = trial.suggest_categorical(f"{encoder}.pooling", list(poolings_of(encoder, params)))
    head = trial.suggest_categorical("head", [h for h in params.heads if HEADS[h]().TAKES == "vectors"])
    return CandidateSpec(encoder, head, level, pooling, HEADS[head]().space(_Named(trial, head)))


def fixed_hyperparameters(params: SearchParams, head: str) -> Hyperparameters:
    """What a head that takes frames is given beside the numbers of its space: its own section and its training."""
    network = network_params(head, params)
    own = network.model_dump(mode="json", exclude={"encoders", "training"})
    hyperparameters = {**training_params(network, params).model_dump(mode="json"), **own}
    return {name: value for name, value in hyperparameters.items() if value is not None}


def derive_seed(seed: int, *places: int) -> int:
    """A seed for one place: slot, or slot and fold."""
    return int(np.random.SeedSequence([seed, *places]).generate_state(1)[0])
