"""The search space: parameters in; the plan of trials, and the spec of each planned trial, out.

Initial trials come first, then Optuna draws. How many trials each network head gets is planned and not drawn, because
one network costs as much as all heads of pooled vectors together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from heartml.core.config import InitialTrialParams, SearchParams
from heartml.core.system.errors import HeartMLError
from heartml.core.tasks import Task
from heartml.models.ensemble.candidate import CandidateSpec, Level
from heartml.models.heads import HEADS, Hyperparameters
from heartml.models.heads.network_params import network_params, training_params
from heartml.models.pooling import POOLINGS

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class PlannedTrial:
    """One trial of the plan: what is known before Optuna is asked for its hyperparameters.

    Attributes:
        number: position in the plan; column `trial` of the outputs.
        network: the head, if it takes frames; other heads are drawn.
        initial: the initial trial of `params.yaml` that this is, if any.
    """

    number: int
    network: str | None
    initial: InitialTrialParams | None


class SearchError(HeartMLError):
    """The search's parameters name something that does not exist; the message says what exists."""


def check(params: SearchParams, encoders: Sequence[str]) -> None:
    """Check that heads, poolings, encoders and initial trials can be used.

    Raises:
        SearchError: one cannot; the message names it.
        HeartMLError: a parameter of a network head cannot be used, see `NetworkParams.check`.
    """
    for encoder, names in params.poolings.items():
        _known(f"search.poolings.{encoder}", names, POOLINGS)
    _known("search.heads", params.heads, HEADS)
    _known("search.most_recordings", params.most_recordings, HEADS)
    if set(network_heads(params)) == set(params.heads):
        raise SearchError("search.heads: at least one head that takes pooled vectors is needed")
    _known("search.network_trials", params.network_trials, [head for head in HEADS if HEADS[head]().TAKES == "frames"])
    _check_encoders(params, encoders)
    _check_initial_trials(params)
    for head in network_heads(params):
        network_params(head, params).check()


def affordable(params: SearchParams, recordings: int) -> SearchParams:
    """The parameters without the heads that would take too long on so many recordings (`most_recordings`).

    Raises:
        SearchError: no head that takes pooled vectors is left.
    """
    kept = tuple(head for head in params.heads if recordings <= params.most_recordings.get(head, recordings))
    left = params.model_copy(update={"heads": kept})
    if set(network_heads(left)) == set(kept):
        raise SearchError(f"search.heads: with {recordings:,} recordings search.most_recordings leaves no head that "
                          "takes pooled vectors: add logistic or lightgbm")
    return left


def _check_encoders(params: SearchParams, encoders: Sequence[str]) -> None:
    of_networks = {encoder for head in network_heads(params) for encoder in network_params(head, params).encoders}
    missing = [encoder for encoder in encoders if not poolings_of(encoder, params) and encoder not in of_networks]
    if missing:
        raise SearchError(f"search.poolings: nothing for encoder {missing[0]}. Give it some of {', '.join(POOLINGS)}.")
    if not pooled_encoders(params, encoders):
        raise SearchError(f"search.poolings: nothing for any of {', '.join(encoders)}, which pooled heads need")
    for head in network_heads(params):
        own = network_params(head, params).encoders
        if params.network_trials.get(head) and not set(own) & set(encoders):
            raise SearchError(f"search.heads: {head} needs frames of {' or '.join(own)}. Add that to `encoders`.")


def _check_initial_trials(params: SearchParams) -> None:
    for number, initial in enumerate(params.initial_trials):
        where = f"search.initial_trials[{number}]"
        _known(f"{where}.head", [initial.head], HEADS)
        takes = HEADS[initial.head]().TAKES
        if (initial.pooling is None) != (takes == "frames"):
            raise SearchError(f"{where}: head {initial.head} takes {takes}, pooling {initial.pooling}")
        if initial.pooling is not None:
            _known(f"{where}.pooling", [initial.pooling], poolings_of(initial.encoder, params))
        ranges = hyperparameter_ranges(initial.head)
        _known(f"{where}: hyperparameters", initial.hyperparameters, ranges)
        for name, value in initial.hyperparameters.items():
            low, high = ranges[name]
            if not low <= value <= high:
                raise SearchError(f"{where}: hyperparameters: {name} {value:g} lies outside of {low:g} to {high:g}")


def _known(where: str, names: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise SearchError(f"{where}: {unknown[0]!r} is not known, there are {', '.join(known)}")


def hyperparameter_ranges(head: str) -> dict[str, tuple[float, float]]:
    """Names and ranges of the hyperparameters in a head's search space."""
    ranges = _Ranges({})
    HEADS[head]().space(ranges)
    return ranges.found


@dataclass(frozen=True)
class _Ranges:
    """A `Suggester` that records the ranges of the hyperparameters."""

    found: dict[str, tuple[float, float]]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.found[name] = (low, high)
        return low

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        self.found[name] = (low, high)
        return low


def network_heads(params: SearchParams) -> list[str]:
    """The enabled heads that take frames."""
    return [head for head in params.heads if HEADS[head]().TAKES == "frames"]


def poolings_of(encoder: str, params: SearchParams) -> tuple[str, ...]:
    """The poolings that are tried for an encoder: `search.poolings` under its name, or else under `"*"`."""
    return params.poolings.get(encoder, params.poolings.get("*", ()))


def pooled_encoders(params: SearchParams, encoders: Sequence[str]) -> list[str]:
    """The encoders whose frames are pooled for the heads that take vectors."""
    return [encoder for encoder in encoders if poolings_of(encoder, params)]


def plan(params: SearchParams, encoders: Sequence[str]) -> list[list[PlannedTrial]]:
    """The plan in batches: first all enabled initial trials, then `params.batch` at a time, `params.trials` in all."""
    enabled = [one for one in params.initial_trials if one.encoder in encoders and one.head in params.heads]
    first: list[tuple[str | None, InitialTrialParams]] = []
    more: list[str | None] = []
    for head in network_heads(params):
        own = set(network_params(head, params).encoders) & set(encoders)
        wanted = params.network_trials.get(head, 0) if own else 0
        of_head = [one for one in enabled if one.head == head and one.encoder in own][:wanted]
        first += [(head, one) for one in of_head]
        more += [head] * (wanted - len(of_head))
    first += [(None, one) for one in enabled if one.head not in network_heads(params)]
    initial = first[: params.trials]
    left = params.trials - len(initial)
    rest = [*more, *[None] * left][:left]
    planned = [PlannedTrial(number, head, one) for number, (head, one) in enumerate(initial)]
    planned += [PlannedTrial(len(initial) + number, head, None) for number, head in enumerate(rest)]
    later = range(len(initial), len(planned), params.batch)
    return [batch for batch in [planned[: len(initial)], *(planned[i : i + params.batch] for i in later)] if batch]


def initial_values(planned: PlannedTrial, task: Task) -> dict[str, Any]:
    """The values of an initial trial as Optuna parameters, under the names that `suggest` uses."""
    initial = planned.initial
    assert initial is not None
    hyperparameters = {f"{initial.head}.{name}": value for name, value in initial.hyperparameters.items()}
    if planned.network:
        return {f"{initial.head}.encoder": initial.encoder, **hyperparameters}
    level = initial.level if task.unit == "patient" else "recording"
    return {"encoder": initial.encoder, "level": level, f"{initial.encoder}.pooling": initial.pooling,
            "head": initial.head, **hyperparameters}


class _Named:
    """A trial whose hyperparameters are named after the head, so that heads do not share a distribution."""

    def __init__(self, trial: "optuna.Trial", head: str) -> None:
        self.trial, self.head = trial, head

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return self.trial.suggest_float(f"{self.head}.{name}", low, high, log=log)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return self.trial.suggest_int(f"{self.head}.{name}", low, high, log=log)


def suggest(trial: "optuna.Trial", planned: PlannedTrial, params: SearchParams, task: Task,
            encoders: Sequence[str]) -> CandidateSpec:
    """Draw a spec from the search space: encoder x level x pooling x head x the head's own hyperparameters."""
    if planned.network:
        allowed = [one for one in network_params(planned.network, params).encoders if one in encoders]
        encoder = trial.suggest_categorical(f"{planned.network}.encoder", allowed)
        hyperparameters = HEADS[planned.network]().space(_Named(trial, planned.network))
        return CandidateSpec(encoder, planned.network, "recording", None,
                             {**hyperparameters, **fixed_hyperparameters(params, planned.network)})
    encoder = trial.suggest_categorical("encoder", pooled_encoders(params, encoders))
    levels = ["recording", "unit"] if task.unit == "patient" else ["recording"]
    level = cast(Level, trial.suggest_categorical("level", levels))
    pooling = trial.suggest_categorical(f"{encoder}.pooling", list(poolings_of(encoder, params)))
    head = trial.suggest_categorical("head", [h for h in params.heads if HEADS[h]().TAKES == "vectors"])
    return CandidateSpec(encoder, head, level, pooling, HEADS[head]().space(_Named(trial, head)))


def fixed_hyperparameters(params: SearchParams, head: str) -> Hyperparameters:
    """Hyperparameters of a network head that are not searched: its own section and its training parameters."""
    network = network_params(head, params)
    own = network.model_dump(mode="json", exclude={"encoders", "training"})
    hyperparameters = {**training_params(network, params).model_dump(mode="json"), **own}
    return {name: value for name, value in hyperparameters.items() if value is not None}


def derive_seed(seed: int, *places: int) -> int:
    """A seed for a trial (`places` is its number), or for one of its folds (number of the trial, fold)."""
    return int(np.random.SeedSequence([seed, *places]).generate_state(1)[0])
