"""Optuna's part of the search: which trial is tried next, from a storage that survives a kill.

A trial has a slot; everything random about it follows from (seed, slot). A batch is asked for before any of it is told,
and told in the order asked, so the number of workers never shows. After a kill the trials that were left running are
told FAIL, and their slots are asked for again: with the parameters they had, or, where they had none yet, from the
same history with the same seed.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from heartml.core.config import SearchParams
from heartml.core.tasks import Task
from heartml.models.ensemble.candidate import CandidateSpec
from heartml.training import search_space
from heartml.training.search_space import Slot

STORAGE = "HEARTML_OPTUNA_STORAGE"     # a URL; a shared service takes the place of the journal
_SLOT, _SPEC, _OUTCOME = "slot", "spec", "outcome"


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended: the running values of its folds, and its value unless it was pruned."""

    steps: tuple[float, ...]
    value: float | None


@dataclass
class RunningTrial:
    """A trial that runs: Optuna's handle, and the outcome where an earlier run already had it."""

    slot: Slot
    spec: CandidateSpec
    handle: optuna.Trial
    outcome: TrialOutcome | None


def open_study(journal: Path, key: str) -> optuna.Study:
    """The study `key`, in the journal or behind `HEARTML_OPTUNA_STORAGE`; what a killed run left running is failed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = os.environ.get(STORAGE)
    storage: BaseStorage | str = url or JournalStorage(JournalFileBackend(str(_mended(journal))))
    study = optuna.create_study(storage=storage, study_name=key, direction="maximize", load_if_exists=True)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def in_memory_study() -> optuna.Study:
    """A study without history, in memory: what it is asked first, any new study is asked first."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize")


def _mended(journal: Path) -> Path:
    """The journal without a last line that a kill cut short, and without a dead process's lock.

    The caller holds the stage's own lock, which the kernel frees.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.with_name(journal.name + ".lock").unlink(missing_ok=True)
    if journal.exists():
        whole = journal.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            os.truncate(journal, end)
    return journal


def ask(study: optuna.Study, batch: Sequence[Slot], params: SearchParams, task: Task, encoders: Sequence[str],
        seed: int) -> list[RunningTrial]:
    """Ask for the trials of one batch, in order."""
    return [_ask(study, slot, params, task, encoders, seed) for slot in batch]


def _ask(study: optuna.Study, slot: Slot, params: SearchParams, task: Task, encoders: Sequence[str],
         seed: int) -> RunningTrial:
    earlier = _earlier(study, slot)
    known = earlier.params if earlier else search_space.fixed(slot, task) if slot.start else {}
    study.sampler = _sampler(known, search_space.derive_seed(seed, slot.number))
    handle = study.ask()
    handle.set_user_attr(_SLOT, slot.number)
    spec = search_space.suggest(handle, slot, params, task, encoders)
    handle.set_user_attr(_SPEC, json.dumps(spec.to_json(), sort_keys=True))
    stored = earlier.user_attrs.get(_OUTCOME) if earlier else None
    outcome = TrialOutcome(tuple(stored["steps"]), stored["value"]) if stored else None
    return RunningTrial(slot, spec, handle, outcome)


def _earlier(study: optuna.Study, slot: Slot) -> optuna.trial.FrozenTrial | None:
    """The latest failed trial of a slot whose parameters were all asked for."""
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    own = [t for t in failed if t.user_attrs.get(_SLOT) == slot.number and _SPEC in t.user_attrs]
    return own[-1] if own else None


def _sampler(known: dict[str, Any], seed: int) -> optuna.samplers.BaseSampler:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        tpe = optuna.samplers.TPESampler(seed=seed, multivariate=False)
        return optuna.samplers.PartialFixedSampler(known, tpe) if known else tpe


def tell(study: optuna.Study, asked: Sequence[RunningTrial]) -> None:
    """Tell a batch's outcomes in the order asked; all are written down before the first is told."""
    for one in asked:
        store_outcome(one)
    for one in asked:
        outcome = one.outcome
        assert outcome is not None
        for step, value in enumerate(outcome.steps):
            one.handle.report(value, step)
        state = TrialState.PRUNED if outcome.value is None else TrialState.COMPLETE
        study.tell(one.handle, outcome.value, state=state)


def store_outcome(asked: RunningTrial) -> None:
    """Keep a trial's outcome with the trial, before any of its batch is told."""
    outcome = asked.outcome
    assert outcome is not None
    asked.handle.set_user_attr(_OUTCOME, {"steps": list(outcome.steps), "value": outcome.value})


def finished_trials(study: optuna.Study) -> Iterator[tuple[int, CandidateSpec, TrialOutcome]]:
    """Slot, spec and outcome of every finished trial."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        stored = trial.user_attrs[_OUTCOME]
        spec = CandidateSpec.from_json(json.loads(trial.user_attrs[_SPEC]))
        yield int(trial.user_attrs[_SLOT]), spec, TrialOutcome(tuple(stored["steps"]), stored["value"])


def should_prune(study: optuna.Study, asked: RunningTrial, steps: Sequence[float], params: SearchParams) -> bool:
    """Whether the trial's running value is below the median of the finished trials of earlier batches."""
    pruner = optuna.pruners.MedianPruner(n_startup_trials=params.pruning_startup_trials, n_warmup_steps=1)
    frozen = study.get_trials(deepcopy=True)[asked.handle.number]
    frozen.intermediate_values = dict(enumerate(steps))
    return bool(pruner.prune(study, frozen))
