"""Collect what the gate needs, and let it judge: the challenger's side from `artifacts/`, the champion's from its run.

In: a task's name and the registered champion. Out: a `Verdict`.

The champion's predictions were stored when it was evaluated, for the units that were held out then. For held-out units
that came later the registered model predicts now, if they are few. Otherwise the gate says how many were left out.
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
from heartml.core.system.files import read_json, temporary_folder
from heartml.core.tasks import Assignment, Task, resolve
from heartml.evaluation import assessment
from heartml.lineage import capture
from heartml.metrics import METRICS
from heartml.metrics.scores import LabelledPredictions
from heartml.models.fitted_model import Model
from heartml.registry import model_files, tracking
from heartml.registry.champions import Entry
from heartml.registry.versions import Version
from heartml.release import champion_comparison, gate
from heartml.release.champion_comparison import Champion, Comparison
from heartml.release.gate import Criterion, Verdict

if TYPE_CHECKING:
    from heartml.registry.tracking import Client

UNITS_FILE = "held_out_units.csv"


@dataclass(frozen=True)
class ChallengerInputs:
    """The challenger's side.

    Attributes:
        predictions: about its held-out units.
        folds: schema.FOLDS.
        units: of each unit (source, age group, sex), indexed by unit_id.
        evaluation: `metrics.json`.
    """

    predictions: LabelledPredictions
    folds: pd.DataFrame
    units: pd.DataFrame
    evaluation: Mapping[str, Any]


def judge(
    client: "Client", name: str, champion: Version | None, params: Params, retirement: Entry | None = None
) -> Verdict:
    """The gate's verdict on the model in `artifacts/`, compared with the registered champion.

    Args:
        champion: `None` if there is none yet, or none any more.
        retirement: the decision of a person because of which there is none any more. The model is then judged like a
            first one and refused, because only a person may put a version into service again.
    """
    assignment = resolve(name)
    task, challenger = assignment.task, load_challenger(assignment)
    comparison = None
    if champion:
        rng = np.random.default_rng(params.seed)
        serving = load_champion(client, champion, task, challenger, params.gate.catch_up_recordings)
        comparison = champion_comparison.compare(task, challenger.predictions, serving, challenger.folds,
                                                 challenger.units, params.gate, rng)
    criteria = [*gate.decided_by_a_person(retirement),
                *_criteria(task, challenger, champion, comparison, name, params)]
    return gate.decide(criteria, comparison, first=champion is None)


def _criteria(
    task: Task, challenger: ChallengerInputs, champion: Version | None, comparison: Comparison | None, name: str,
    params: Params,
) -> list[Criterion]:
    metric, evaluation = METRICS[task.metric], challenger.evaluation
    value = evaluation["held_out"][metric.name]["value"]
    differences = evaluation["against_floors"]["held_out"]
    own = [
        gate.better_than_champion(metric, champion.number, comparison, params.gate),
        gate.no_subgroup_loses(comparison, params.gate.subgroup_margin),
        gate.as_well_calibrated(comparison, params.gate.calibration_margin),
    ] if champion else [gate.first_model_calibrated(evaluation["held_out"]["ece"], params.gate.calibration_limit)]
    passed, result = capture.validation()
    return [
        *own,
        gate.beats_baselines(metric, np.nan if value is None else value, differences, evaluation["floor_titles"]),
        *gate.groups_are_persons(evaluation.get("persons")),
        gate.no_problems("validation", [] if passed else ["the data did not pass validation"],
                       f"the data passed validation (warnings: {len(result.get('warnings', []))})"),
        gate.no_problems("lineage", capture.gather(name)["missing"], "the lineage is complete"),
    ]


def load_challenger(assignment: Assignment) -> ChallengerInputs:
    """Read the challenger's side from `artifacts/`."""
    folder, task = paths.evaluation(assignment.name), assignment.task
    folds = pd.read_parquet(paths.folds(assignment.name))
    columns = ["recording_id", *assessment.DESCRIPTION_COLUMNS, "location"]
    recordings = pd.read_parquet(paths.RECORDINGS, columns=columns)
    units = assessment.describe_units(folds.merge(recordings, on="recording_id", validate="1:1"), task)
    predictions = LabelledPredictions.from_table(pd.read_parquet(folder / "predictions.parquet"), task.classes)
    return ChallengerInputs(predictions, folds, units[list(assessment.DESCRIPTION_COLUMNS)],
                            read_json(folder / "metrics.json"))


def held_out_units_as_csv(name: str) -> str:
    """Source, age group and sex of each held-out unit, as CSV for the run.

    `heartml compare` needs them for subgroups when the data have changed since.
    """
    return str(load_challenger(resolve(name)).units.to_csv(index_label="unit_id"))


def load_champion(
    client: "Client", champion: Version, task: Task, challenger: ChallengerInputs, limit: int
) -> Champion:
    """The champion's stored predictions, and new ones about units that came after it.

    Args:
        limit: new predictions are made only if the later units have at most so many recordings.
    """
    with temporary_folder() as folder:
        stored = tracking.fetch(client, champion.run_id, "evaluation/predictions.parquet", folder)
        own = tracking.fetch(client, champion.run_id, "folds.parquet", folder)
        table, folds = pd.read_parquet(stored), pd.read_parquet(own)
        trained_on = frozenset(folds.loc[folds["part"] != TEST, "recording_id"])
        if not {f"p_{name}" for name in task.classes} <= set(table):
            return Champion(champion.number, None, trained_on)
        fair = champion_comparison.units_not_trained_on(challenger.folds, trained_on)
        late = challenger.folds[challenger.folds["unit_id"].isin(set(fair) - set(table["unit_id"]))]
        if 0 < len(late) <= limit:
            with contextlib.suppress(HeartMLError):   # files gone, or not for this code: the gate counts these units
                table = pd.concat([table, predict_recordings(model_files.download(client, champion, folder), late)])
    return Champion(champion.number, LabelledPredictions.from_table(table, task.classes), trained_on)


def predict_recordings(folder: Path, recordings: pd.DataFrame) -> pd.DataFrame:
    """Predict recordings (schema.FOLDS) with a stored model; a table like `predictions.parquet`.

    Raises:
        HeartMLError: the model is not for this code, or a recording cannot be read.
    """
    samples = [sound_files.read(paths.audio(recording_id)) for recording_id in recordings["recording_id"]]
    waveforms = [(s.floats, s.sample_rate_hz) for s in samples]
    predicted = Model.load(folder).predict_audio(waveforms, list(recordings["unit_id"]))
    units = recordings.drop_duplicates("unit_id").set_index("unit_id").loc[list(predicted.unit_ids)].reset_index()
    table = units[["unit_id", "group_id", "label"]].assign(
        part=TEST, decision=[predicted.classes[d] for d in predicted.decisions])
    for kind, values in (("p", predicted.probabilities), ("c", predicted.calibrated)):
        table[[f"{kind}_{name}" for name in predicted.classes]] = values
    return table
