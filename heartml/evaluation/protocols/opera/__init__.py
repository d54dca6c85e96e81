"""The probe of the OPERA benchmark (arXiv 2406.16148) for our encoders: publishers' folders in, AUROCs out.

DIR holds collections in their publishers' layouts, each in a folder of its name. Tasks whose collection is missing are
named and left out. Two rows stand for each encoder: `average` (over time and bands, as the benchmark pools) and `mean`
(over time; bands are kept apart, as the follow-up study arXiv 2505.15307 does).

Where a published split lies in DIR it is used. Otherwise the parts are drawn by persons, and the text says so.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heartml.core.config import Params
from heartml.core.system.progress import track
from heartml.core.task_definition import Organ
from heartml.evaluation.protocols.cohort import ProtocolError
from heartml.evaluation.protocols.opera import cases, linear, splits, vectors
from heartml.evaluation.protocols.opera.cases import Case, LeftOutError
from heartml.evaluation.protocols.opera.splits import TEST, TRAIN, VALIDATION, Split
from heartml.evaluation.protocols.opera.tasks import MACRO_AUC, TASKS, BenchmarkTask
from heartml.metrics import METRICS, bootstrap_intervals
from heartml.metrics.scores import json_number
from heartml.models import encoders, heard
from heartml.models.encoders import EncoderSpec

POOLINGS = ("average", "mean")
ORGAN: Organ = "lung"


def run(folder: Path, names: Sequence[str], params: Params, seeds: int) -> dict[str, Any]:
    """Probe every encoder on every task whose collection is in `folder`.

    Returns:
        `tasks`: name -> `title`, `number`, `metric`, `split` (`published` or `drawn`), `split_words`, `parts` (cases
        and persons of each), `not_in_split`, `refused`, `published` and `encoders`: rows with `encoder`, `pooling`,
        `features`, `scores` (metric -> value, low, high over persons of the mean probabilities; mean and sd over seeds)
        and, where persons of the test part are in training too, `new_persons`. `left_out`: name of a task -> why.

    Raises:
        EncoderError, ParamsError, WeightsError: see `encoders.spec`.
        HeardError: an encoder was trained on what a task scores.
        ProtocolError: no task can be done.
    """
    own = params.for_organ(ORGAN)
    specs = {name: encoders.spec(name, own) for name in dict.fromkeys(names)}
    found: dict[str, Any] = {"tasks": {}, "left_out": {}, "seeds": seeds, "poolings": list(POOLINGS)}
    for task in TASKS:
        try:
            found["tasks"][task.name] = _task(task, folder, specs, own, seeds)
        except LeftOutError as error:
            found["left_out"][task.name] = str(error)
    if not found["tasks"]:
        why = "; ".join(f"{name}: {words}" for name, words in found["left_out"].items())
        raise ProtocolError(f"{folder}: no task of the benchmark can be done ({why})")
    return found


def _task(
    task: BenchmarkTask, folder: Path, specs: Mapping[str, EncoderSpec], params: Params, seeds: int
) -> dict[str, Any]:
    """The numbers of one task.

    Raises:
        LeftOutError: its collection is not there, or too small.
    """
    place = cases.place_of(task, folder)
    read, refused = cases.read(task, place)
    split = splits.of(task, folder, place, read, params.seed)
    kept = [case for case in read if case in split.parts]
    splits.refuse_one_class(task, kept, split)
    table = cases.table(kept, split.parts)
    heard.refuse(task.name, {name: spec.to_json() for name, spec in specs.items()}, table)
    rows = [row for name, spec in specs.items() for row in _rows(task, name, spec, kept, split, params, seeds)]
    parts = {part: {"cases": int((table["part"] == part).sum()),
                    "persons": int(table.loc[table["part"] == part, "group_id"].nunique())}
             for part in (TRAIN, VALIDATION, TEST)}
    return {"title": task.title, "number": task.number, "metric": task.metric, "classes": list(task.classes),
            "split": split.kind, "split_words": split.words, "parts": parts, "not_in_split": len(read) - len(kept),
            "test_persons_in_training": len(split.crossing), "refused": refused, "published": dict(task.published),
            "encoders": rows}


def _rows(
    task: BenchmarkTask, name: str, spec: EncoderSpec, kept: Sequence[Case], split: Split, params: Params, seeds: int
) -> list[dict[str, Any]]:
    pooled = vectors.pooled(spec, kept, POOLINGS, f"{task.name}: {name}")
    return [{"encoder": name, "pooling": pooling, "features": pooled[pooling].shape[1],
             **_scores(task, pooled[pooling], kept, split, params, seeds, f"{task.name}: {name}, {pooling}")}
            for pooling in POOLINGS]


def _scores(
    task: BenchmarkTask, features: linear.Floats, kept: Sequence[Case], split: Split, params: Params, seeds: int,
    title: str,
) -> dict[str, Any]:
    """Scores of one probe on the test part, over `seeds` seeds."""
    code = {label: number for number, label in enumerate(task.classes)}
    labels = np.array([code[case.label] for case in kept])
    parts = np.array([split.parts[case] for case in kept])
    groups = np.array([case.group for case in kept])
    recipe = linear.Recipe(task.batch, task.epochs, task.validated_every)
    rows = {part: parts == part for part in (TRAIN, VALIDATION, TEST)}
    runs = np.stack([
        linear.probe(features, labels, rows[TRAIN], rows[VALIDATION], rows[TEST], len(task.classes), recipe, seed)
        for seed in track(range(seeds), title, seeds)])
    truth, who = labels[rows[TEST]], groups[rows[TEST]]
    new = ~np.isin(who, list(split.crossing))
    metrics = [METRICS[metric] for metric in dict.fromkeys((task.metric, MACRO_AUC))]
    mean = runs.mean(0)
    intervals = bootstrap_intervals(
        metrics, truth, mean, mean.argmax(1), task.classes, who, resamples=params.evaluate.bootstrap,
        confidence=params.evaluate.confidence, rng=np.random.default_rng(params.seed))
    scores = {}
    for metric in metrics:
        of_seeds = [metric.function(truth, p, p.argmax(1), task.classes) for p in runs]
        found = intervals[metric.name]
        scores[metric.name] = {
            "value": json_number(found.value), "low": json_number(found.low), "high": json_number(found.high),
            "mean": json_number(float(np.mean(of_seeds))), "sd": json_number(float(np.std(of_seeds))),
            "seeds": [json_number(float(value)) for value in of_seeds]}
    first = METRICS[task.metric]
    only_new = first.function(truth[new], mean[new], mean[new].argmax(1), task.classes) if new.any() else float("nan")
    return {"scores": scores, **({"new_persons": json_number(float(only_new))} if split.crossing else {})}
