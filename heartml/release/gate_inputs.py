"""What the gate is told: the challenger's held-out answers from its evaluation, the champion's from its run.

The champion answered its own held-out units when it was evaluated. Held-out units that came later it is asked about
now, with the model that is registered, when they are few; otherwise the gate says how many were left out.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from heartml.audio import sound_files
from heartml.core import paths
from heartml.core.config import Params
from heartml.core.schema import TEST
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import read_json, scratch
from heartml.core.tasks import Assignment, Task, resolve
from heartml.evaluation import assessment
from heartml.lineage import capture
from heartml.metrics import METRICS
from heartml.metrics.scores import Scored
from heartml.models.fitted_model import Model
from heartml.registry import model_files, tracking
from heartml.registry.versions import Version
from heartml.release import gate
from heartml.release.gate import Champion, Criterion, Verdict

if TYPE_CHECKING:
    from heartml.registry.tracking import Client

KNOWN = "held_out_units.csv"


@dataclass(frozen=True)
class Held:
    """The challenger's side: its answers, its folds, and what is known of each unit (source, age group, sex)."""

    answers: Scored
    folds: pd.DataFrame
    known: pd.DataFrame
    evaluation: Mapping[str, Any]


def judge(client: "Client", name: str, champion: Version | None, params: Params) -> Verdict:
    """The gate's verdict on the model that lies in `artifacts/`, against the registered champion."""
    assignment = resolve(name)
    task, held = assignment.task, held_out(assignment)
    comparison = None
    if champion:
        rng = np.random.default_rng(params.seed)
        rival = of_champion(client, champion, task, held, params.gate.catch_up_recordings)
        comparison = gate.compare(task, held.answers, rival, held.folds, held.known, params.gate, rng)
    return gate.decide(_criteria(task, held, champion, comparison, name, params), comparison, first=champion is None)


def _criteria(
    task: Task, held: Held, champion: Version | None, comparison: gate.Comparison | None, name: str, params: Params
) -> list[Criterion]:
    metric = METRICS[task.metric]
    value = held.evaluation["held_out"][metric.name]["value"]
    against = held.evaluation["against_floors"]["held_out"]
    rivalry = [
        gate.better_than_champion(metric, champion.number, comparison, params.gate),
        gate.no_subgroup_loses(comparison, params.gate.subgroup_margin),
        gate.as_well_calibrated(comparison, params.gate.calibration_margin),
    ] if champion else [gate.calibrated(held.evaluation["held_out"]["ece"], params.gate.calibration_limit)]
    passed, result = capture.validation()
    return [
        *rivalry,
        gate.beats_baselines(metric, np.nan if value is None else value, against, held.evaluation["floor_titles"]),
        gate.all_there("validation", [] if passed else ["the data did not pass validation"],
                       f"the data passed validation (warnings: {len(result.get('warnings', []))})"),
        gate.all_there("lineage", capture.gather(name)["missing"], "the lineage is complete"),
    ]


def held_out(assignment: Assignment) -> Held:
    """Read the challenger's side from `artifacts/`."""
    folder, task = paths.evaluation(assignment.name), assignment.task
    folds = pd.read_parquet(paths.folds(assignment.name))
    recordings = pd.read_parquet(paths.RECORDINGS, columns=["recording_id", *assessment.DESCRIBES, "location"])
    known = assessment.describe(folds.merge(recordings, on="recording_id", validate="1:1"), task)
    answers = Scored.of(pd.read_parquet(folder / "predictions.parquet"), task.classes)
    return Held(answers, folds, known[list(assessment.DESCRIBES)], read_json(folder / "metrics.json"))


def known_as_csv(name: str) -> str:
    """What is known of each held-out unit, for the run: `heartml compare` divides by it when the data have moved on."""
    return str(held_out(resolve(name)).known.to_csv(index_label="unit_id"))


def of_champion(client: "Client", champion: Version, task: Task, held: Held, limit: int) -> Champion:
    """The champion's answers, to units that came after it too where these have at most `limit` recordings."""
    with scratch() as folder:
        stored = tracking.fetch(client, champion.run_id, "evaluation/predictions.parquet", folder)
        own = tracking.fetch(client, champion.run_id, "folds.parquet", folder)
        table, folds = pd.read_parquet(stored), pd.read_parquet(own)
        trained_on = frozenset(folds.loc[folds["part"] != TEST, "recording_id"])
        if not {f"p_{name}" for name in task.classes} <= set(table):
            return Champion(champion.number, None, trained_on)
        fair = gate.untrained(held.folds, trained_on)
        late = held.folds[held.folds["unit_id"].isin(set(fair) - set(table["unit_id"]))]
        if 0 < len(late) <= limit:
            with contextlib.suppress(HeartMLError):   # files gone, or not for this code: the gate says how many it lost
                table = pd.concat([table, ask(model_files.download(client, champion, folder), late)])
    return Champion(champion.number, Scored.of(table, task.classes), trained_on)


def ask(folder: Path, recordings: pd.DataFrame) -> pd.DataFrame:
    """A stored model's answers to recordings (schema.FOLDS), as `predictions.parquet` has them.

    Raises:
        HeartMLError: the model is not for this code, or a recording cannot be read.
    """
    samples = [sound_files.read(paths.audio(recording_id)) for recording_id in recordings["recording_id"]]
    heard = [(s.floats, s.sample_rate_hz) for s in samples]
    said = Model.load(folder).predict_audio(heard, list(recordings["unit_id"]))
    units = recordings.drop_duplicates("unit_id").set_index("unit_id").loc[list(said.unit_ids)].reset_index()
    table = units[["unit_id", "group_id", "label"]].assign(
        part=TEST, decision=[said.classes[d] for d in said.decisions])
    for kind, values in (("p", said.probabilities), ("c", said.calibrated)):
        table[[f"{kind}_{name}" for name in said.classes]] = values
    return table
