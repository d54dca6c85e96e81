"""A student for an export: a registered ensemble in, one small model that answers in its place out, and what it loses.

What it loses is measured on the same units for both. The held-out units were seen by nobody. The out-of-fold ones are
more; there both were fitted without the unit, but the student learnt from probabilities of other units whose models
had seen it, so its loss may look a little smaller than it is.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heartml.core import folds, paths
from heartml.core.config import Params
from heartml.core.folds import TEST
from heartml.core.system.hashing import sha256_folder
from heartml.core.tasks import Task
from heartml.inference.model_lookup import LocatedModel
from heartml.metrics import METRICS
from heartml.metrics.bootstrap import Difference, paired_bootstrap
from heartml.metrics.scores import LabelledPredictions
from heartml.models import applicability
from heartml.models.encoders import EncoderSpec
from heartml.models.ensemble.selection import EnsembleTerms
from heartml.models.fitted_model import Model
from heartml.models.frame_cache import open_frames
from heartml.training import distillation, fold_fits
from heartml.training.distillation import CannotDistil, Student
from heartml.training.final_fits import encoder_specs, out_of_fold_table

LOG_LOSS = "log_loss"
PARTS = {"held_out": "held out", "out_of_fold": "out of fold"}


@dataclass(frozen=True)
class Lost:
    """A student beside its ensemble on the same units.

    Attributes:
        units, groups: how many.
        metric: the task's.
        ensemble, student: its value for each.
        difference: student minus ensemble in the metric, with its interval over groups.
        log_loss: the same in the log loss of calibrated probabilities; less is better.
        decided_alike: units with the same class.
    """

    units: int
    groups: int
    metric: str
    ensemble: float
    student: float
    difference: Difference
    log_loss: Difference
    decided_alike: int

    @property
    def words(self) -> str:
        """One line for people."""
        return (f"{self.units} units, {self.groups} groups: {self.metric} {self.student:.3f}, the ensemble "
                f"{self.ensemble:.3f} ({_interval(self.difference)}); log loss {_interval(self.log_loss)}, less is "
                f"better; {self.decided_alike} decided alike")


@dataclass(frozen=True)
class Made:
    """A student as a model, and what it loses: part -> `Lost`."""

    model: Model
    lost: Mapping[str, Lost]

    def as_json(self) -> dict[str, Any]:
        """What `export.json` says about it."""
        return {part: asdict(one) for part, one in self.lost.items()}

    def in_words(self) -> list[str]:
        """One line for each part."""
        return [f"the student, {PARTS[part]}: {one.words}" for part, one in self.lost.items()]


def make(located: LocatedModel, teacher: Model, params: Params) -> Made:
    """Train a student of the model in `artifacts/`, and compare both.

    Raises:
        CannotDistil: what the ensemble was trained on is not here, or no network of the kind is known.
    """
    name = teacher.assignment_name
    if not paths.model(name).is_dir() or sha256_folder(paths.model(name)) != sha256_folder(located.folder):
        raise CannotDistil(f"{located.description}: a student learns from what it was trained on, and artifacts/{name} "
                           "holds another model or none. Check out its commit (`heartml lineage` names it), run "
                           "`dvc checkout`, and try again")
    data = fold_fits.training_data(name, params.encoders, Path.cwd())
    if distillation.ENCODER not in data.encoders:
        raise CannotDistil(f"params.yaml: a student hears {distillation.ENCODER}; add it to `encoders`")
    table = pd.read_parquet(paths.out_of_fold(name)).set_index("unit_id").loc[list(data.train_set.unit_ids)]
    taught = table[[f"c_{label}" for label in teacher.task.classes]].to_numpy(float)
    spec = distillation.student_spec(paths.search(name), params.search.for_task(name))
    terms = EnsembleTerms(teacher.task, params.stacking, params.ensemble.for_task(name))
    student = distillation.train(data, taught, spec, terms, params.seed)
    model = _as_model(student, teacher, encoder_specs(data, {distillation.TRIAL: spec}))
    own = pd.concat([_held_out(model), out_of_fold_table(data.train_set, student.out_of_fold)])
    others = pd.concat([pd.read_parquet(paths.evaluation(name) / "predictions.parquet"), table.reset_index()])
    return Made(model, lost(own, others, teacher.task, params))


def _as_model(student: Student, teacher: Model, specs: Mapping[str, Mapping[str, Any]]) -> Model:
    """The student in the place of its ensemble: what it refers, and what it accepts, are the same."""
    checked = {applicability.ENCODER: teacher.encoder_specs[applicability.ENCODER]} if teacher.applicability else {}
    return Model.assemble(teacher.assignment_name, {distillation.TRIAL: student.spec},
                          {distillation.TRIAL: (student.head,)}, student.ensemble, {**specs, **checked},
                          teacher.refer_below, teacher.applicability, teacher.task)


def _held_out(model: Model) -> pd.DataFrame:
    """The student's predictions for the held-out units: unit_id, decision, p_<class>, c_<class>."""
    name = model.assignment_name
    table = folds.read(paths.folds(name))
    rows = table[table["part"] == TEST]
    frames = {encoder: open_frames(name, EncoderSpec.from_json(spec), list(rows["recording_id"]))
              for encoder, spec in model.encoder_specs.items()}
    found = model.predict(frames, list(rows["unit_id"]))
    table = rows.drop_duplicates("unit_id").set_index("unit_id").loc[list(found.unit_ids)].reset_index()
    table = table[["unit_id", "group_id", "label", "part"]].assign(decision=found.top_classes)
    for kind, values in (("p", found.probabilities), ("c", found.calibrated)):
        table[[f"{kind}_{label}" for label in found.classes]] = values
    return table


def lost(own: pd.DataFrame, others: pd.DataFrame, task: Task, params: Params) -> dict[str, Lost]:
    """What the student's predictions `own` lose beside the ensemble's, for each part that has units.

    Args:
        own, others: tables of predictions about the same units, see `heartml.metrics.scores`.
    """
    student = LabelledPredictions.from_table(own.sort_values("unit_id"), task.classes)
    ensemble = LabelledPredictions.from_table(others.sort_values("unit_id"), task.classes)
    assert student.unit_ids.tolist() == ensemble.unit_ids.tolist()
    held_out = student.parts == TEST
    return {part: _lost(student.take(rows), ensemble.take(rows), task, params)
            for part, rows in (("held_out", held_out), ("out_of_fold", ~held_out)) if rows.any()}


def _lost(student: LabelledPredictions, ensemble: LabelledPredictions, task: Task, params: Params) -> Lost:
    metric, rng = METRICS[task.metric], np.random.default_rng(params.seed)

    def difference(name: str, kind: str) -> Difference:
        first, second = ((getattr(one, kind), one.decisions) for one in (student, ensemble))
        return paired_bootstrap(METRICS[name], student.labels, first, second, task.classes, student.groups,
                                resamples=params.evaluate.bootstrap, confidence=params.evaluate.confidence, rng=rng)

    before, after = (metric.function(student.labels, one.probabilities, one.decisions, task.classes)
                     for one in (ensemble, student))
    return Lost(len(student.labels), len(np.unique(student.groups)), task.metric, before, after,
                difference(task.metric, "probabilities"), difference(LOG_LOSS, "calibrated"),
                int((student.decisions == ensemble.decisions).sum()))


def _interval(found: Difference) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
