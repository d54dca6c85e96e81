"""The search of one task: parameters and training data in; a study of trials and the results of their fits out.

Trials are tried in batches. They are fitted fold by fold and scored on out-of-fold predictions.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from heartml.core import folds, paths
from heartml.core.config import EnsembleParams, Params, SearchParams, StackingParams
from heartml.core.system import code_hash, files, hashing
from heartml.core.system.parallel import Pool
from heartml.core.system.progress import Progress, show, track
from heartml.core.tasks import resolve
from heartml.metrics import METRICS
from heartml.models import heard
from heartml.models.ensemble.candidate import CandidateSpec
from heartml.models.ensemble.selection import EnsembleTerms, out_of_fold
from heartml.models.ensemble.stacking import StackingView, stacking_features, view_kinds
from heartml.models.heads import HEADS, HeadPrediction, learns_parent
from heartml.models.heads.network_params import network_params
from heartml.training import fold_fits, search_space
from heartml.training import study as trials
from heartml.training.fold_fits import FoldFit, TrainingData
from heartml.training.search_space import PlannedTrial
from heartml.training.study import RunningTrial, TrialOutcome
from heartml.training.training_set import TrainingSet

if TYPE_CHECKING:
    from optuna import Study

KEY_DIGITS = 16

_NETWORK_COST = 20     # fits of other heads that one fit of a network takes as long as; for the time left
SINGLE_TRIAL = EnsembleParams(rounds=1, max_members=1)     # the ensemble that a trial is scored as
CODE = ("metrics", "models/heads", "models/ensemble", "models/pooling.py", "models/residual_block.py",
        "models/segmentation.py", "models/trunks",
        "models/encoders/heart.py", "models/encoders/m2d.py", "models/encoders/transformers.py", "training",
        "core/folds.py", "core/frame_store.py", "core/schema.py", "core/system/lazy.py")
LIBRARIES = ("lightgbm", "numpy", "optuna", "scikit-learn", "scipy", "timm", "torch")
LIBRARIES_OF_HEADS = {"finetune": ("peft", "transformers"), "describe": ("peft", "transformers")}     # optional ones
REPORTING_FIELDS = ("official", "positive", "coarse_classes")     # of a task: they change pages, and no fit


def open_search(name: str, params: Params) -> "SearchRun":
    """The search of one task; it continues unfinished work with the same `content_key`.

    Raises:
        SearchError: the parameters name something that does not exist.
        HeardError: an encoder was trained on a group of the task.
        NoParent: a head learns the labels of a wider task, and there is none.
    """
    search_space.check(params.search.for_task(name), params.encoders)
    data = fold_fits.training_data(name, params.encoders, Path.cwd(), shared=True)
    if data.parent is None and any(learns_parent(HEADS[head]()) for head in params.search.for_task(name).heads):
        fold_fits.parent_units(data, np.ones(len(data.train_set.unit_ids), bool))
    heard.refuse(name, {encoder: frames.encoder for encoder, frames in data.encoders.items()},
                 folds.read(paths.folds(name)))
    folder = paths.STATE / "search" / f"{name}-{content_key(name, params)[:KEY_DIGITS]}"
    return SearchRun(data, name, params, folder)


def content_key(name: str, params: Params) -> str:
    """SHA-256 over everything that a trial's value depends on. It names the study and the folder of its fits.

    These are the data, the frames (whose content covers audio and encoders), the definition of the task, the
    parameters, the code and the versions of libraries. The number of workers is left out, and so are fields of the task
    that only change what is reported.
    """
    tables = [hashing.sha256_file(path) for path in (paths.folds(name), paths.RECORDINGS, paths.ANNOTATIONS)]
    frames = [hashing.sha256_folder(paths.features(name, encoder)) for encoder in params.encoders]
    search = params.search.for_task(name)
    poolings = {encoder: search_space.poolings_of(encoder, search) for encoder in params.encoders}
    values = [search.model_dump(exclude={"workers"}), params.stacking.model_dump(), params.seed, poolings]
    parts = [name, task_definition(name), tables, frames, values, code_hash.fingerprint(*CODE),
             library_versions(search.heads)]
    return hashing.sha256(files.canonical_json(parts).encode())


def task_definition(name: str) -> dict[str, Any]:
    """Fields of a task that fits and scores depend on: label, classes, unit, metric and so on, as JSON values."""
    return {key: value for key, value in asdict(resolve(name).task).items() if key not in REPORTING_FIELDS}


def library_versions(heads: Iterable[str] = ()) -> dict[str, str | None]:
    """Versions of the libraries whose computations a trial's value depends on; `None` for one that is not installed.

    Args:
        heads: those that are enabled, some of which need more.
    """
    found: dict[str, str | None] = {library: metadata.version(library) for library in LIBRARIES}
    return found | {library: _version(library) for head in heads for library in LIBRARIES_OF_HEADS.get(head, ())}


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class SearchRun:
    """The search of one task; `folder` holds its journal and the results of its fits."""

    data: TrainingData
    name: str
    params: Params
    folder: Path

    @property
    def search(self) -> SearchParams:
        """The parameters of this task's search, without heads that would take too long on so many recordings."""
        return search_space.affordable(self.params.search.for_task(self.name), len(self.data.train_set.recording_ids))

    @property
    def left_out(self) -> str:
        """Heads of params.yaml that are left out, in words; empty where all are used."""
        heads = [head for head in self.params.search.for_task(self.name).heads if head not in self.search.heads]
        recordings = len(self.data.train_set.recording_ids)
        return f"{', '.join(heads)} left out: more than search.most_recordings ({recordings:,})" if heads else ""

    def memory(self, at_once: int) -> list[str]:
        """One line for each network that tells its memory in advance, on each of its encoders.

        Raises:
            MemoryRefused: a training would need more than is free.
        """
        found = []
        for head in search_space.network_heads(self.search):
            tell = getattr(HEADS[head](), "told_in_advance", None)
            if tell is None or not self.search.network_trials.get(head):
                continue
            fixed = search_space.fixed_hyperparameters(self.search, head)
            found += [tell(self.data.encoders[encoder].encoder, len(self.data.train_set.task.classes), fixed, at_once)
                      for encoder in network_params(head, self.search).encoders if encoder in self.data.encoders]
        return found

    def run_batches(self, study: "Study", workers: Pool) -> None:
        """Ask for, evaluate and tell one batch after the other, until the plan is done.

        Then do the fits whose trials were found in a shared storage and whose results are not on this machine.
        """
        finished = {trial for trial, _, _ in trials.finished_trials(study)}
        train_set, encoders = self.data.train_set, self.params.encoders
        plan = search_space.plan(self.search, encoders)
        costs = [train_set.folds * sum(_cost(one.network is not None) for one in batch) for batch in plan]
        with show(f"search {self.name}", sum(costs), counted=False) as shown:
            for place, batch in enumerate(plan):
                shown.total = shown.done + sum(costs[place:])      # less for what was known or pruned
                shown.words = f"search {self.name}: {_where(batch, plan)}{self._best(study)}"
                left = [one for one in batch if one.number not in finished]
                asked = trials.ask(study, left, self.search, train_set.task, encoders, self.params.seed)
                self._evaluate(study, asked, workers, shown)
                trials.tell(study, asked)
        complete = [(trial, spec) for trial, spec, found in trials.finished_trials(study) if found.value is not None]
        fits = [self.fold_fit(trial, spec, fold) for trial, spec in complete for fold in range(train_set.folds)]
        self.run_fits(fits, workers, "search: fits of trials in the shared storage that are missing on this machine")

    def first_fits(self) -> list[FoldFit]:
        """The fits of the first batch, those of networks first because they take long."""
        first, encoders = search_space.plan(self.search, self.params.encoders)[0], self.params.encoders
        asked = trials.ask(trials.in_memory_study(), first, self.search, self.data.train_set.task, encoders,
                           self.params.seed)
        folds = range(self.data.train_set.folds)
        fits = [self.fold_fit(one.planned.number, one.spec, fold) for one in asked for fold in folds]
        return sorted(fits, key=_is_short)

    def run_fits(self, fits: Sequence[FoldFit], workers: Pool, title: str) -> None:
        """Do the fits whose result file is missing, those of networks first; `title` is shown with the progress."""
        left = _missing(fits)
        for _ in track(workers.map(fold_fits.fit_fold, left), title, len(left)):
            pass

    def _best(self, study: "Study") -> str:
        values = [found.value for _, _, found in trials.finished_trials(study) if found.value is not None]
        return f", best so far {abs(max(values)):.3f}" if values else ""

    def _evaluate(self, study: "Study", asked: Sequence[RunningTrial], workers: Pool, shown: Progress) -> None:
        """Set the outcome of every trial that has none yet."""
        steps: dict[int, list[float]] = {row: [] for row in range(len(asked)) if asked[row].outcome is None}
        for wave in self._waves(study):
            fits = [self.fold_fit(asked[row].planned.number, asked[row].spec, fold) for fold in wave for row in steps]
            left = _missing(fits)
            for fit, _ in zip(left, workers.map(fold_fits.fit_fold, left), strict=True):
                shown.advance(_cost(not _is_short(fit)))
            for row in list(steps):
                steps[row] += [self._value_so_far(asked[row], fold) for fold in wave]
                last = wave[-1] == self.data.train_set.folds - 1
                blind = learns_parent(asked[row].spec.head_module)     # its value without a stacker is chance
                if not last and not blind and trials.should_prune(study, asked[row], steps[row], self.search):
                    asked[row].outcome = TrialOutcome(tuple(steps.pop(row)), None)
        for row, values in steps.items():
            spec = asked[row].spec
            predictions = self.predictions(asked[row].planned.number, spec)
            value = trial_value(spec, *predictions, self.data.train_set, self.params.stacking)
            asked[row].outcome = TrialOutcome(tuple(values), value)

    def _waves(self, study: "Study") -> list[list[int]]:
        """The folds to fit at once: one by one as soon as pruning is possible, before that all together."""
        folds = list(range(self.data.train_set.folds))
        possible = len(list(trials.finished_trials(study))) >= self.search.pruning_startup_trials
        return [[fold] for fold in folds] if possible else [folds]

    def fold_fit(self, trial: int, spec: CandidateSpec, fold: int) -> FoldFit:
        """The fit of one trial without one fold."""
        seed = search_space.derive_seed(self.params.seed, trial, fold)
        return FoldFit(self.name, self.params.encoders, Path.cwd(), spec, fold, seed, self.result_file(trial, fold))

    def result_file(self, trial: int, fold: int) -> Path:
        """The file that the result of one fit is written to."""
        return self.folder / f"{trial}-{fold}.safetensors"

    def _value_so_far(self, asked: RunningTrial, fold: int) -> float:
        """Macro AUC over the folds up to `fold`, .5 where it is not defined; a metric of decisions varies too much."""
        train_set = self.data.train_set
        done = train_set.parts <= fold
        predictions = [fold_fits.read_prediction(self.result_file(asked.planned.number, f)) for f in range(fold + 1)]
        log_p = joined_folds(asked.spec, predictions, train_set).log_p
        of_recordings = asked.spec.level == "recording"
        rows = train_set.recordings_of(done) if of_recordings else np.flatnonzero(done)
        labels = (train_set.recording_labels if of_recordings else train_set.labels)[rows]
        auc = METRICS["macro_auc"].function(labels, np.exp(log_p[rows]), labels, train_set.task.classes)
        return 0.5 if math.isnan(auc) else auc

    def predictions(self, trial: int, spec: CandidateSpec) -> tuple[HeadPrediction, HeadPrediction | None]:
        """Out-of-fold predictions of a trial whose folds are all fitted, and those with noise added, if any."""
        results = [self.result_file(trial, fold) for fold in range(self.data.train_set.folds)]
        noisy = [prediction for file in results if (prediction := fold_fits.read_noisy_prediction(file)) is not None]
        return (joined_folds(spec, [fold_fits.read_prediction(file) for file in results], self.data.train_set),
                joined_folds(spec, noisy, self.data.train_set) if noisy else None)


def _missing(fits: Sequence[FoldFit]) -> list[FoldFit]:
    """The fits without a result file, those of networks first."""
    return sorted((fit for fit in fits if not fit.file.exists()), key=_is_short)


def _cost(network: bool) -> int:
    return _NETWORK_COST if network else 1


def _where(batch: Sequence[PlannedTrial], plan: Sequence[Sequence[PlannedTrial]]) -> str:
    """`trials 5 to 8 of 16`."""
    first, last, count = batch[0].number + 1, batch[-1].number + 1, sum(map(len, plan))
    return f"trials {first} to {last} of {count}" if first < last else f"trial {first} of {count}"


def _is_short(fit: FoldFit) -> bool:
    return fit.spec.head_module.TAKES == "vectors"


def joined_folds(spec: CandidateSpec, folds: Sequence[HeadPrediction], train_set: TrainingSet) -> HeadPrediction:
    """One prediction for all recordings (or, at level `unit`, units) from those of the first folds; zeros elsewhere."""
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
    """The task's metric of an ensemble of this trial alone, with stacker and decision rule fitted out of fold.

    A metric that is better when it is smaller is negated.
    """
    kind = view_kinds(spec, train_set.task, prediction)[0]
    features = {StackingView((0,), kind): stacking_features(kind, prediction, train_set.unit, noisy)}
    terms = EnsembleTerms(train_set.task, stacking, SINGLE_TRIAL)
    found = out_of_fold(features, train_set.labels, train_set.groups, train_set.parts, terms)
    metric = METRICS[train_set.task.metric]
    value = metric.function(train_set.labels, np.exp(found.log_p), found.decisions, train_set.task.classes)
    return value if metric.greater_is_better else -value


def summary_line(train_set: TrainingSet, table: pd.DataFrame) -> str:
    """`312 recordings in, 16 trials out (3 pruned), best 7 (svm_rbf) .712`."""
    best = table.sort_values("value", ascending=False, kind="stable").iloc[0]
    pruned = int((table["state"] == "PRUNED").sum())
    return (f"{len(train_set.recording_ids)} recordings of {len(train_set.unit_ids)} units in, {len(table)} trials out "
            f"({pruned} pruned), best {best['trial']} ({best['encoder']}, {best['head']}) with "
            f"{train_set.task.metric} {best['value']:.3f}")
