"""Predictions of all trained tasks of a collection for the same recordings, for instance four diseases of each patient.

In: files and the names of tasks. Out: one `PredictResult` for each task that has a model. Each file is read once, and
frames that several models need are computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heartml.core import config
from heartml.core.config import Params
from heartml.core.system import parallel
from heartml.core.system.progress import track
from heartml.core.tasks import GROUPS, expand_groups
from heartml.inference import inputs, model_lookup, model_set, predict, training_recordings
from heartml.inference.inputs import InputFile
from heartml.inference.model_lookup import LocatedModel, NoModel
from heartml.inference.model_set import MURMUR, ModelSet
from heartml.inference.predict import PredictResult, ScoredRecording, UnitPrediction
from heartml.models.shared_inputs import SharedInputs


@dataclass(frozen=True)
class TaskModel:
    """One task's model, and what it has predicted so far."""

    located: LocatedModel
    models: ModelSet
    predictions: list[UnitPrediction]


@dataclass(frozen=True)
class SeveralResults:
    """The results of several tasks for the same files.

    Attributes:
        results: one for each task with a model, in the order of the tasks.
        left_out: why a task has none, one line each.
    """

    results: tuple[PredictResult, ...]
    left_out: tuple[str, ...]


def asked(named: str | None, tasks: Sequence[str]) -> tuple[str, ...]:
    """The tasks that are asked for together; empty where it is one task, or where they are not of one collection.

    Descriptors of murmurs are left out beside the murmur itself, because only a murmur that was found is described.

    Args:
        named: a group of tasks, a data set, a task, or `None` for all of `tasks`.
        tasks: those of params.yaml.

    >>> asked("bmdhs", ["bmdhs-aortic_stenosis", "bmdhs-mitral_stenosis", "pascal-sounds"])
    ('bmdhs-aortic_stenosis', 'bmdhs-mitral_stenosis')
    >>> asked(None, ["pascal-sounds", "circor-murmur"]), asked("circor-murmur", ["circor-murmur", "circor-outcome"])
    ((), ())
    """
    datasets = {task: task.rpartition("-")[0] for task in tasks}
    if named is None:
        found = tuple(tasks) if len(set(datasets.values())) == 1 else ()
    elif named in datasets.values():
        found = tuple(task for task in tasks if datasets[task] == named)
    else:
        found = expand_groups([named]) if named.rpartition("-")[2] in GROUPS else ()
    if any(task.rpartition("-")[2] == MURMUR for task in found):
        found = tuple(task for task in found if task.rpartition("-")[2] not in GROUPS["descriptors"])
    return found if len(found) > 1 or (named is not None and named not in tasks) else ()


def run(named: Sequence[Path], tasks: Sequence[str]) -> SeveralResults:
    """Score the files, folders and tables `named` with the model of each task.

    Raises:
        InputsError: there is nothing to score.
        NoModel: no task has a model.
        CautionedModel: see `model_set.cautions`.
    """
    parallel.single_thread()
    params = config.load()
    items = inputs.gather(named)
    found, left_out = [], []
    for task in tasks:
        try:
            located = model_lookup.locate(None, task, params.tasks)
        except NoModel as error:
            left_out.append(str(error))
            continue
        found.append(TaskModel(located, model_set.load(located, params.predict.accepted_sources), []))
    if not found:
        raise NoModel("; ".join(left_out))
    results = predict_files(items, found, params)
    return SeveralResults(tuple(one.with_data() for one in results), tuple(left_out))


def predict_files(items: Sequence[InputFile], found: Sequence[TaskModel], params: Params) -> tuple[PredictResult, ...]:
    """Predict for files `[n]` with every model, block by block; models of one organ together. Ordered as `found`."""
    by_organ: dict[str, list[TaskModel]] = {}
    for one in found:
        by_organ.setdefault(one.models.model.task.organ, []).append(one)
    if len(by_organ) > 1:       # warnings about a recording are those of an organ
        results = {id(one): result for own in by_organ.values()
                   for one, result in zip(own, predict_files(items, own, params), strict=True)}
        return tuple(results[id(one)] for one in found)
    cautions = [model_set.cautions(one.located, one.models, params.predict) for one in found]
    unit_of = {kind: inputs.units(items, kind) for kind in sorted({one.models.model.task.unit for one in found})}
    blocks = inputs.blocks(unit_of.get("patient") or unit_of["recording"], predict.AT_ONCE)
    faults: list[ScoredRecording] = []
    organ = found[0].models.model.task.organ
    for block in track(blocks, "predict", len(blocks)):
        recordings, waveforms = zip(*(predict.read_recording(items[i], params, organ) for i in block), strict=True)
        usable = [i for i, waveform in enumerate(waveforms) if waveform is not None]
        faults += [recording for recording in recordings if recording.fault]
        for kind, units in unit_of.items() if usable else ():
            own = [units[i] for i in block]
            shared = SharedInputs([w for w in waveforms if w is not None], [own[i] for i in usable],
                                  [quality for i in usable if (quality := recordings[i].quality)])
            for one in (one for one in found if one.models.model.task.unit == kind):
                one.predictions.extend(predict.predict_units(recordings, shared, own, one.models, params))
    return tuple(
        PredictResult(
            one.located, one.models.model.assignment_name, one.models.model.task.unit, one.models.model.task.classes,
            tuple(one.predictions), tuple(faults), lines, training_recordings.read(one.located.folds),
            one.models.accepted_sources)
        for one, lines in zip(found, cautions, strict=True))
