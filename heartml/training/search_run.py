"""The search of one task: batches of trials, fitted fold by fold, scored out of fold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from heartml.core import paths
from heartml.core.config import EnsembleParams, Params, SearchParams, StackingParams
from heartml.core.system import code_hash, files, hashing
from heartml.core.system.parallel import Pool
from heartml.core.system.progress import track
from heartml.metrics import METRICS
from heartml.models.ensemble.candidate import CandidateSpec
from heartml.models.ensemble.selection import EnsembleTerms, out_of_fold
from heartml.models.ensemble.stacking import StackingView, stacking_features, view_kinds
from heartml.models.heads import HeadPrediction
from heartml.training import fold_fits, search_space
from heartml.training import study as trials
from heartml.training.fold_fits import FoldFit, TrainingData
from heartml.training.study import RunningTrial, TrialOutcome
from heartml.training.training_set import TrainingSet

if TYPE_CHECKING:
    from optuna import Study

KEY_DIGITS = 16

ALONE = EnsembleParams(rounds=1, max_members=1)     # a trial is scored by itself


def open_search(name: str, params: Params) -> "SearchRun":
    """The search of one task, its unfinished work where it was left.

    Raises:
        SearchError: its parameters name something that is not there.
    """
    search_space.check(params.search.of(name), params.encoders)
    data = fold_fits.training_data(name, params.encoders, Path.cwd())
    folder = paths.STATE / "search" / f"{name}-{content_key(name, params)[:KEY_DIGITS]}"
    return SearchRun(data, name, params, folder)


def content_key(name: str, params: Params) -> str:
    """Hash of everything that decides the outcome: data, frames, parameters, code."""
    tables = [hashing.sha256_file(path) for path in (paths.folds(name), paths.RECORDINGS, paths.ANNOTATIONS)]
    frames = [hashing.sha256_folder(paths.features(name, encoder)) for encoder in params.encoders]
    numbers = [params.search.of(name).model_dump(exclude={"workers"}), params.stacking.model_dump(), params.seed]
    own = code_hash.fingerprint("models/heads", "models/ensemble", "models/pooling.py", "training")
    return hashing.sha256(files.canonical_json([name, tables, frames, params.encoders, numbers, own]).encode())


@dataclass(frozen=True)
class SearchRun:
    """The search of one task."""

    data: TrainingData
    name: str
    params: Params
    folder: Path

    @property
    def search(self) -> SearchParams:
        """The parameters of this task's search."""
        return self.params.search.of(self.name)

    def all_batches(self, study: "Study", workers: Pool) -> None:
        """Ask, evaluate and tell batch after batch."""
        finished = {slot for slot, _, _ in trials.finished_trials(study)}
        train_set, encoders = self.data.train_set, self.params.encoders
        for number, batch in enumerate(plan := search_space.plan(self.search, encoders)):
            left = [slot for slot in batch if slot.number not in finished]
            asked = trials.ask(study, left, self.search, train_set.task, encoders, self.params.seed)
            self._evaluate(study, asked, workers, f"search: batch {number + 1} of {len(plan)}")
            trials.tell(study, asked)
        complete = [(slot, spec) for slot, spec, outcome in trials.finished_trials(study) if outcome.value is not None]
        self.fit([self.job(slot, spec, fold) for slot, spec in complete for fold in range(train_set.folds)], workers,
                  "search: fits that a shared storage knows of and this machine does not")

    def first_jobs(self) -> list[FoldFit]:
        """The fits of the first batch, the long ones first."""
        first, encoders = search_space.plan(self.search, self.params.encoders)[0], self.params.encoders
        asked = trials.ask(trials.in_memory_study(), first, self.search, self.data.train_set.task, encoders,
                           self.params.seed)
        jobs = [self.job(one.slot.number, one.spec, fold) for one in asked for fold in range(self.data.train_set.folds)]
        return sorted(jobs, key=_is_short)

    def fit(self, jobs: Sequence[FoldFit], workers: Pool, words: str) -> None:
        """Do the jobs whose result is not there, the long ones first."""
        left = sorted((j for j in jobs if not j.file.exists()), key=_is_short)
        for _ in track(workers.map(fold_fits.fit_fold, left), words, len(left)):
            pass

    def _evaluate(self, study: "Study", asked: Sequence[RunningTrial], workers: Pool, words: str) -> None:
        """Set the outcome of every trial that has none yet."""
        alive: dict[int, list[float]] = {one: [] for one in range(len(asked)) if asked[one].outcome is None}
        for wave in self._waves(study):
            jobs = [self.job(asked[one].slot.number, asked[one].spec, fold) for fold in wave for one in alive]
            self.fit(jobs, workers, words)
            for one in list(alive):
                alive[one] += [self._running(asked[one], fold) for fold in wave]
                last = wave[-1] == self.data.train_set.folds - 1
                if not last and trials.should_prune(study, asked[one], alive[one], self.search):
                    asked[one].outcome = TrialOutcome(tuple(alive.pop(one)), None)
        for one, running in alive.items():
            spec = asked[one].spec
            said = self.predictions(asked[one].slot.number, spec)
            asked[one].outcome = TrialOutcome(tuple(running),
                                              trial_value(spec, *said, self.data.train_set, self.params.stacking))

    def _waves(self, study: "Study") -> list[list[int]]:
        """Fold by fold once pruning is possible; before that all at once, which keeps every worker busy."""
        folds = list(range(self.data.train_set.folds))
        possible = len(list(trials.finished_trials(study))) >= self.search.pruning_startup_trials
        return [[fold] for fold in folds] if possible else [folds]

    def job(self, slot: int, spec: CandidateSpec, fold: int) -> FoldFit:
        """One fit."""
        seed = search_space.derive_seed(self.params.seed, slot, fold)
        return FoldFit(self.name, self.params.encoders, Path.cwd(), spec, fold, seed, self.file(slot, fold))

    def file(self, slot: int, fold: int) -> Path:
        """Where the result of one fit lies."""
        return self.folder / f"{slot}-{fold}.safetensors"

    def _running(self, asked: RunningTrial, fold: int) -> float:
        """Macro AUC of the folds so far, chance where it is not defined; decisions of so few units would be noise."""
        train_set = self.data.train_set
        seen = train_set.parts <= fold
        predictions = [fold_fits.read_prediction(self.file(asked.slot.number, f)) for f in range(fold + 1)]
        log_p = joined_folds(asked.spec, predictions, train_set).log_p
        heard = asked.spec.level == "recording"
        rows = train_set.recordings_of(seen) if heard else np.flatnonzero(seen)
        labels = (train_set.recording_labels if heard else train_set.labels)[rows]
        auc = METRICS["macro_auc"].function(labels, np.exp(log_p[rows]), labels, train_set.task.classes)
        return 0.5 if math.isnan(auc) else auc

    def predictions(self, slot: int, spec: CandidateSpec) -> tuple[HeadPrediction, HeadPrediction | None]:
        """Out-of-fold predictions of a trial whose folds are all fitted, and those with noise where there are any."""
        results = [self.file(slot, fold) for fold in range(self.data.train_set.folds)]
        noisy = [prediction for file in results if (prediction := fold_fits.read_noisy_prediction(file)) is not None]
        return (joined_folds(spec, [fold_fits.read_prediction(file) for file in results], self.data.train_set),
                joined_folds(spec, noisy, self.data.train_set) if noisy else None)


def _is_short(job: FoldFit) -> bool:
    return job.spec.family.TAKES == "vectors"


def joined_folds(spec: CandidateSpec, folds: Sequence[HeadPrediction], train_set: TrainingSet) -> HeadPrediction:
    """Answers of the first folds, put where their recordings (or units) stand; zeros elsewhere."""
    cases = len(train_set.recording_ids) if spec.level == "recording" else len(train_set.unit_ids)
    log_p = np.zeros((cases, folds[0].log_p.shape[1]))
    details = None if folds[0].details is None else np.zeros((cases, folds[0].details.shape[1]))
    for fold, prediction in enumerate(folds):
        here = train_set.parts == fold
        rows = train_set.recordings_of(here) if spec.level == "recording" else np.flatnonzero(here)
        log_p[rows] = prediction.log_p
        if details is not None and prediction.details is not None:
            details[rows] = prediction.details
    return HeadPrediction(log_p, details)


def trial_value(spec: CandidateSpec, prediction: HeadPrediction, noisy: HeadPrediction | None, train_set: TrainingSet,
                stacking: StackingParams) -> float:
    """The task's metric of a trial alone, its view and its decision rule cross-fitted."""
    kind = view_kinds(spec, train_set.task, prediction)[0]
    seen = {StackingView((0,), kind): stacking_features(kind, prediction, train_set.unit, noisy)}
    verdicts = out_of_fold(seen, train_set.labels, train_set.parts, EnsembleTerms(train_set.task, stacking, ALONE))
    metric = METRICS[train_set.task.metric]
    found = metric.function(train_set.labels, np.exp(verdicts.log_p), verdicts.decisions, train_set.task.classes)
    return found if metric.greater_is_better else -found


def in_words(train_set: TrainingSet, table: pd.DataFrame) -> str:
    """`312 recordings in, 16 trials out (3 pruned), best 7 (svm_rbf) .712`."""
    best = table.sort_values("value", ascending=False, kind="stable").iloc[0]
    pruned = int((table["state"] == "PRUNED").sum())
    return (f"{len(train_set.recording_ids)} recordings of {len(train_set.unit_ids)} units in, {len(table)} trials out "
            f"({pruned} pruned), best {best['trial']} ({best['encoder']}, {best['head']}) with "
            f"{train_set.task.metric} {best['value']:.3f}")
