"""Collect what the gate needs, and let it judge: the challenger's side from `artifacts/`, the champion's from its run.

In: a task's name and the registered champion. Out: a `Verdict`.

The champion's predictions were stored when it was evaluated: for the units that were held out then, and out of fold for
those that it was trained on. A champion without stored out-of-fold predictions is compared on held-out units alone. For
units that are new to it the registered model predicts now, if they are few. The gate says how many were left out.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from heartml.audio import sound_files
from heartml.core import folds, paths
from heartml.core.config import Params, migrate_keys
from heartml.core.schema import TEST
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import read_json, temporary_folder
from heartml.core.tasks import Assignment, Task, resolve
from heartml.evaluation import assessment, baselines, inputs
from heartml.lineage import capture
from heartml.metrics import METRICS, Difference, paired_bootstrap
from heartml.metrics.scores import LabelledPredictions
from heartml.models.fitted_model import Model
from heartml.registry import model_files, tracking
from heartml.registry.champions import Entry
from heartml.registry.versions import Version
from heartml.release import champion_comparison, champion_criteria, gate, refresh
from heartml.release.champion_comparison import Champion, Comparison
from heartml.release.champion_criteria import PLAIN, Policy
from heartml.release.gate import Criterion, Evidence, Verdict
from heartml.release.looks import Look

if TYPE_CHECKING:
    from heartml.registry.tracking import Client

UNITS_FILE = "held_out_units.csv"


@dataclass(frozen=True, eq=False)
class ChallengerInputs:
    """The challenger's side.

    Attributes:
        predictions: about its held-out units, and its out-of-fold predictions.
        folds: schema.FOLDS with its context: what the challenger may have heard.
        units: of each unit (source, age group, sex), indexed by unit_id.
        evaluation: `metrics.json`.
    """

    predictions: LabelledPredictions
    folds: pd.DataFrame
    units: pd.DataFrame
    evaluation: Mapping[str, Any]


def judge(
    client: "Client", name: str, champion: Version | None, params: Params, look: Look, retirement: Entry | None = None
) -> Verdict:
    """The gate's verdict on the model in `artifacts/`, compared with the registered champion.

    Args:
        champion: `None` if there is none yet, or none any more.
        look: which look at the task's units it is, see `heartml.release.looks`.
        retirement: the decision of a person because of which there is none any more. The model is then judged like a
            first one and refused, because only a person may put a version into service again.
    """
    assignment = resolve(name)
    task, challenger = assignment.task, load_challenger(assignment)
    comparison, policy = None, PLAIN
    if champion:
        rng = np.random.default_rng(params.seed)
        serving = load_champion(client, champion, task, challenger, params.gate.catch_up_recordings)
        comparison = champion_comparison.compare(task, challenger.predictions, serving, challenger.folds,
                                                 challenger.units, params.gate, rng, look)
        policy = refresh.policy(params.gate.policy, _params(paths.PARAMS), _champion_params(client, champion),
                                challenger.folds, serving.folds)
    criteria = [*gate.decided_by_a_person(retirement),
                *_against_champion(task, champion, comparison, policy, params),
                *_on_its_own(assignment, challenger, champion, look, params)]
    return gate.decide(criteria, comparison, first=champion is None, look=look, policy=policy.kind)


def _against_champion(
    task: Task, champion: Version | None, comparison: Comparison | None, policy: Policy, params: Params
) -> list[Criterion]:
    if champion is None:
        return []
    return [
        champion_criteria.better_than_champion(champion.number, comparison, params.gate, policy),
        champion_criteria.metric_holds(METRICS[task.metric], comparison, params.gate, policy),
        champion_criteria.no_subgroup_loses(comparison, params.gate.subgroup_margin),
        champion_criteria.as_well_calibrated(comparison, params.gate.calibration_margin),
    ]


def _on_its_own(
    assignment: Assignment, challenger: ChallengerInputs, champion: Version | None, look: Look, params: Params
) -> list[Criterion]:
    evaluation = challenger.evaluation
    calibrated = [] if champion else [
        gate.first_model_calibrated(evaluation["held_out"]["ece"], evaluation["counts"]["held_out"]["groups"],
                                    params.gate)]
    passed, result = capture.validation()
    return [
        *calibrated,
        _beats_baselines(assignment, challenger.predictions, champion, look, params),
        *gate.groups_are_persons(evaluation.get("persons")),
        gate.no_problems("validation", [] if passed else ["the data did not pass validation"],
                       f"the data passed validation (warnings: {len(result.get('warnings', []))})"),
        gate.no_problems("lineage", capture.gather(assignment.name)["missing"], "the lineage is complete"),
    ]


def _beats_baselines(
    assignment: Assignment, scored: LabelledPredictions, champion: Version | None, look: Look, params: Params
) -> Criterion:
    """The criterion about baselines: on all held-out and out-of-fold units, at the confidence of a first model's look.

    A challenger of a champion is not promoted for its lead over baselines, so its looks at them are not counted.
    """
    task, first = assignment.task, champion is None
    metric, names = METRICS[task.metric], params.evaluate.baselines
    beside = _baselines(assignment, scored, params)
    at = look if first else Look(look.number, params.gate.confidence)
    differences = {str(name): _lead_over(beside[name], scored, task, at.confidence, params) for name in names}
    held_out = int((scored.parts == TEST).sum())
    on = Evidence(held_out, len(scored.labels) - held_out, at, first and params.gate.first_model == "certain", first)
    value = metric.function(scored.labels, scored.probabilities, scored.decisions, scored.classes)
    titles = {str(name): baselines.BASELINES[name].title for name in names}
    return gate.beats_baselines(metric, value, differences, titles, on)


def _baselines(
    assignment: Assignment, scored: LabelledPredictions, params: Params
) -> Mapping[str, LabelledPredictions]:
    """Each baseline's predictions for the same units, from fits to other folds, as the stage `evaluate` makes them."""
    recordings = inputs.read_recordings(assignment.name, params.for_organ(assignment.task.organ).validate_)
    tables = {"all": pd.concat(_tables(assignment.name))}
    return assessment.assessed_parts(tables, recordings, assignment.task, params.evaluate.baselines)["all"].baselines


def _lead_over(
    other: LabelledPredictions, scored: LabelledPredictions, task: Task, confidence: float, params: Params
) -> Difference:
    return paired_bootstrap(
        METRICS[task.metric], scored.labels, (scored.probabilities, scored.decisions),
        (other.probabilities, other.decisions), scored.classes, scored.groups, resamples=params.gate.bootstrap,
        confidence=confidence, rng=np.random.default_rng(params.seed))


def _tables(name: str) -> list[pd.DataFrame]:
    """The challenger's held-out predictions, and its out-of-fold ones."""
    return [pd.read_parquet(paths.evaluation(name) / "predictions.parquet"), pd.read_parquet(paths.out_of_fold(name))]


def load_challenger(assignment: Assignment) -> ChallengerInputs:
    """Read the challenger's side from `artifacts/`."""
    folder, task = paths.evaluation(assignment.name), assignment.task
    heard = folds.read_heard(paths.folds(assignment.name))
    columns = ["recording_id", *assessment.DESCRIPTION_COLUMNS, "location"]
    recordings = pd.read_parquet(paths.RECORDINGS, columns=columns)
    units = assessment.describe_units(folds.labelled(heard).merge(recordings, on="recording_id", validate="1:1"), task)
    predictions = LabelledPredictions.from_table(pd.concat(_tables(assignment.name)), task.classes)
    return ChallengerInputs(predictions, heard, units[list(assessment.DESCRIPTION_COLUMNS)],
                            read_json(folder / "metrics.json"))


def held_out_units_as_csv(name: str) -> str:
    """Source, age group and sex of each unit, as CSV for the run.

    `heartml compare` needs them for subgroups when the data have changed since.
    """
    return str(load_challenger(resolve(name)).units.to_csv(index_label="unit_id"))


def load_champion(
    client: "Client", champion: Version, task: Task, challenger: ChallengerInputs, limit: int
) -> Champion:
    """The champion's stored predictions, and new ones about units that are new to it.

    Args:
        limit: new predictions are made for at most so many recordings, the held-out ones first.
    """
    with temporary_folder() as folder:
        stored = {path: tracking.fetch(client, champion.run_id, path, folder)
                  for path in ("evaluation/predictions.parquet", "folds.parquet")}
        table, theirs = (pd.read_parquet(path) for path in stored.values())
        if {f"p_{name}" for name in task.classes} != {column for column in map(str, table) if column.startswith("p_")}:
            return Champion(champion.number, None, theirs)
        if "out_of_fold.parquet" in tracking.list_files(client, champion.run_id):
            out_of_fold = tracking.fetch(client, champion.run_id, "out_of_fold.parquet", folder)
            table = pd.concat([table, pd.read_parquet(out_of_fold)]).drop_duplicates("unit_id")
        late, new = new_recordings(challenger.folds, theirs, set(table["unit_id"]), limit), frozenset[str]()
        if len(late):
            with contextlib.suppress(HeartMLError):   # files gone, or not for this code: the gate counts these units
                table = pd.concat([table, predict_recordings(model_files.download(client, champion, folder), late)])
                new = frozenset(late["unit_id"])
    return Champion(champion.number, LabelledPredictions.from_table(table, task.classes), theirs, new)


def new_recordings(table: pd.DataFrame, others: pd.DataFrame, predicted: set[str], limit: int) -> pd.DataFrame:
    """Rows of `table` that the champion may predict now: it has no prediction of the unit and has not seen its group.

    Args:
        table: schema.FOLDS, of the challenger; its context is no case, so nothing is predicted for it.
        others: recording_id and part, of the champion.
        predicted: units that it has a prediction of.
        limit: at most so many recordings, whole units, those that are held out first.

    >>> table = pd.DataFrame({"recording_id": list("abcde"), "unit_id": ["u1", "u2", "u3", "u3", "u4"], "label": "Low",
    ...                       "group_id": ["g1", "g2", "g3", "g3", "g1"], "part": ["0", "0", "test", "test", "0"]})
    >>> new_recordings(table, table[:1], {"u1"}, 2)["recording_id"].tolist()
    ['c', 'd']
    """
    seen = champion_comparison.units_seen(table, others, {})
    cases = folds.labelled(table)
    late = cases[~cases["unit_id"].isin(predicted | seen)]
    late = pd.concat([late[late["part"] == TEST], late[late["part"] != TEST]])
    ends = np.arange(1, len(late) + 1)
    last = pd.Series(ends, index=late.index).groupby(late["unit_id"]).transform("max")
    return late[last <= limit]


def _params(path: Path) -> dict[str, Any]:
    return migrate_keys(yaml.safe_load(path.read_text("utf-8")))


def _champion_params(client: "Client", champion: Version) -> dict[str, Any] | None:
    if "params.yaml" not in tracking.list_files(client, champion.run_id):
        return None
    with temporary_folder() as folder:
        return _params(tracking.fetch(client, champion.run_id, "params.yaml", folder))


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
