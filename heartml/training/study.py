"""Optuna's part of the search: planned trials in, their specs out, and their outcomes back into a storage.

The storage survives a kill. Everything random about a trial follows from the seed and the trial's number in the plan. A
whole batch is asked for before any outcome of it is told to Optuna, and outcomes are told in the same order. So the
number of workers does not change the result. After a kill, trials that were left running are marked FAIL and asked for
again: with the parameters they had, or, where they had none yet, from the same history with the same seed.
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
from heartml.core.system.errors import HeartMLError
from heartml.core.tasks import Task
from heartml.models.ensemble.candidate import CandidateSpec
from heartml.training import search_space
from heartml.training.search_space import PlannedTrial

STORAGE = "HEARTML_OPTUNA_STORAGE"     # environment variable: URL of a database to use instead of the journal
_NUMBER, _SPEC, _OUTCOME = "slot", "spec", "outcome"     # user attributes of a trial in the storage


class StorageError(HeartMLError):
    """The database of trials cannot be used. The message says what to do."""


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended.

    Attributes:
        steps: value after each fold, over the folds so far; the pruner compares these.
        value: of the whole trial, or `None` if it was pruned.
    """

    steps: tuple[float, ...]
    value: float | None


@dataclass
class RunningTrial:
    """A trial that Optuna was asked for: its handle, and its outcome if an earlier run already found it."""

    planned: PlannedTrial
    spec: CandidateSpec
    handle: optuna.Trial
    outcome: TrialOutcome | None


def open_study(journal: Path, key: str) -> optuna.Study:
    """Open the study `key` in the journal, or in the database at `HEARTML_OPTUNA_STORAGE`.

    Trials that a killed run left running are marked FAIL.

    Raises:
        StorageError: the variable holds no address of a database that can be used here.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage: BaseStorage | str = _database() or JournalStorage(JournalFileBackend(str(_repaired(journal))))
    study = optuna.create_study(storage=storage, study_name=key, direction="maximize", load_if_exists=True)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _database() -> str:
    """The address in `HEARTML_OPTUNA_STORAGE`, checked; empty if it is not set. A password in it is never shown."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    address = os.environ.get(STORAGE, "")
    try:
        if address:
            make_url(address).get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise StorageError(f"{STORAGE}: no address of a database that can be used here ({error}). Write "
                           "postgresql+psycopg://USER@HOST/NAME (with heartml[scale]) or sqlite:///FILE, or unset it "
                           "to keep trials in .heartml") from None
    return address


def in_memory_study() -> optuna.Study:
    """A study in memory without history. Its first batch is the same as that of any new study."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize")


def _repaired(journal: Path) -> Path:
    """The journal, without a last line that a kill cut short and without the lock of a dead process.

    The caller holds the stage's own lock, which the kernel releases when a process ends.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.with_name(journal.name + ".lock").unlink(missing_ok=True)
    if journal.exists():
        whole = journal.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            os.truncate(journal, end)
    return journal


def ask(study: optuna.Study, batch: Sequence[PlannedTrial], params: SearchParams, task: Task, encoders: Sequence[str],
        seed: int) -> list[RunningTrial]:
    """Ask Optuna for the trials of one batch, in order."""
    return [_ask(study, planned, params, task, encoders, seed) for planned in batch]


def _ask(study: optuna.Study, planned: PlannedTrial, params: SearchParams, task: Task, encoders: Sequence[str],
         seed: int) -> RunningTrial:
    earlier = _earlier(study, planned)
    known = earlier.params if earlier else search_space.initial_values(planned, task) if planned.initial else {}
    study.sampler = _sampler(known, search_space.derive_seed(seed, planned.number))
    handle = study.ask()
    handle.set_user_attr(_NUMBER, planned.number)
    spec = search_space.suggest(handle, planned, params, task, encoders)
    handle.set_user_attr(_SPEC, json.dumps(spec.to_json(), sort_keys=True))
    stored = earlier.user_attrs.get(_OUTCOME) if earlier else None
    outcome = TrialOutcome(tuple(stored["steps"]), stored["value"]) if stored else None
    return RunningTrial(planned, spec, handle, outcome)


def _earlier(study: optuna.Study, planned: PlannedTrial) -> optuna.trial.FrozenTrial | None:
    """The latest failed run of a planned trial whose parameters were all drawn."""
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    own = [t for t in failed if t.user_attrs.get(_NUMBER) == planned.number and _SPEC in t.user_attrs]
    return own[-1] if own else None


def _sampler(known: dict[str, Any], seed: int) -> optuna.samplers.BaseSampler:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        tpe = optuna.samplers.TPESampler(seed=seed, multivariate=False)
        return optuna.samplers.PartialFixedSampler(known, tpe) if known else tpe


def tell(study: optuna.Study, asked: Sequence[RunningTrial]) -> None:
    """Tell Optuna the outcomes of a batch, in the order asked; all are stored before the first is told."""
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
    """Store a trial's outcome with the trial, before any outcome of its batch is told."""
    outcome = asked.outcome
    assert outcome is not None
    asked.handle.set_user_attr(_OUTCOME, {"steps": list(outcome.steps), "value": outcome.value})


def finished_trials(study: optuna.Study) -> Iterator[tuple[int, CandidateSpec, TrialOutcome]]:
    """Number in the plan, spec and outcome of every finished trial."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        stored = trial.user_attrs[_OUTCOME]
        spec = CandidateSpec.from_json(json.loads(trial.user_attrs[_SPEC]))
        yield int(trial.user_attrs[_NUMBER]), spec, TrialOutcome(tuple(stored["steps"]), stored["value"])


def should_prune(study: optuna.Study, asked: RunningTrial, steps: Sequence[float], params: SearchParams) -> bool:
    """Whether the trial's value so far is below the median of the finished trials of earlier batches.

    Args:
        steps: the trial's value after each fold so far.
    """
    pruner = optuna.pruners.MedianPruner(n_startup_trials=params.pruning_startup_trials, n_warmup_steps=1)
    frozen = study.get_trials(deepcopy=True)[asked.handle.number]
    frozen.intermediate_values = dict(enumerate(steps))
    return bool(pruner.prune(study, frozen))
