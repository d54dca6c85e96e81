"""Compare two registered versions: their scores on the same units, and the data, code and parameters behind them.

In: the files that the runs of both versions keep. Out: plain values for JSON.

A unit is compared if both versions predicted it while it was held out, and neither was trained on its group.
Differences are the second version minus the first, paired over the same units and resampled by group. Labels and groups
are the second's.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from heartml.core import paths
from heartml.core.config import GateParams, Params, migrate_keys
from heartml.core.schema import TEST
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import read_json, temporary_folder
from heartml.core.tasks import Task, of_stored
from heartml.evaluation import assessment
from heartml.metrics import METRICS, Metric, bootstrap_interval, paired_bootstrap
from heartml.metrics.scores import JsonInterval, LabelledPredictions, json_number, task_metrics
from heartml.registry import tracking
from heartml.registry.versions import Version
from heartml.release import champion_comparison, gate_inputs

if TYPE_CHECKING:
    from heartml.registry.tracking import Client

FIRST, SECOND, NEITHER, TOO_FEW = "first", "second", "neither", "too few groups"
_OWN_CODE = ("heartml/", "flows/")


class Incomparable(HeartMLError):  # noqa: N818 - reads as what is the case
    """The two versions cannot be compared. The message says why."""


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two versions and what its run keeps.

    Attributes:
        task: as it was when the version was evaluated.
        predictions: about its held-out units.
        folds: schema.FOLDS, what it was trained on and what was held out.
        units: of each held-out unit (source, age group, sex), indexed by unit_id; empty if the run does not keep it.
        params: as `flatten` gives them.
        lineage: `lineage.json`.
    """

    version: Version
    task: Task
    predictions: LabelledPredictions
    folds: pd.DataFrame
    units: pd.DataFrame
    params: Mapping[str, str]
    lineage: Mapping[str, Any]

    @property
    def trained_on(self) -> frozenset[str]:
        """Recording ids that the version was trained on."""
        return frozenset(self.folds.loc[self.folds["part"] != TEST, "recording_id"])


def load(client: "Client", version: Version) -> Side:
    """Read one version's side from its run.

    Raises:
        Incomparable: its run does not keep what is needed.
    """
    with temporary_folder() as folder:
        there = tracking.list_files(client, version.run_id)
        lacking = [name for name in ("evaluation", "folds.parquet", "params.yaml", "lineage.json") if name not in there]
        if lacking:
            raise Incomparable(f"{version.name} version {version.number}: its run does not keep {', '.join(lacking)}")
        table = pd.read_parquet(tracking.fetch(client, version.run_id, "evaluation/predictions.parquet", folder))
        scored = read_json(tracking.fetch(client, version.run_id, "evaluation/metrics.json", folder))
        folds = pd.read_parquet(tracking.fetch(client, version.run_id, "folds.parquet", folder))
        params = yaml.safe_load(tracking.fetch(client, version.run_id, "params.yaml", folder).read_text("utf-8"))
        facts = read_json(tracking.fetch(client, version.run_id, "lineage.json", folder))
        units = pd.DataFrame(columns=list(assessment.DESCRIPTION_COLUMNS))
        if gate_inputs.UNITS_FILE in there:
            units = pd.read_csv(tracking.fetch(client, version.run_id, gate_inputs.UNITS_FILE, folder), dtype="string",
                                index_col="unit_id", keep_default_na=False, na_values=[""])
    flat = flatten(migrate_keys(params))     # a key that was only renamed since is no difference
    task = of_stored(scored, version.name)
    return Side(version, task, LabelledPredictions.from_table(table, task.classes), folds, units, flat, facts)


def compare(first: Side, second: Side, params: Params) -> dict[str, Any]:
    """Everything that differs between two versions, and by how much.

    Raises:
        Incomparable: they predict different classes or units.
    """
    one, other = first.task, second.task
    if (one.classes, one.unit) != (other.classes, other.unit):
        raise Incomparable(f"{first.version.name} and {second.version.name} are different tasks: {one.unit}s into "
                           f"{', '.join(one.classes)}; {other.unit}s into {', '.join(other.classes)}")
    paired = pair(first, second)
    return {
        **{side: _version_facts(of.version) for side, of in ((FIRST, first), (SECOND, second))},
        "task": other.name, "metric": other.metric, "unit": other.unit, "classes": list(other.classes),
        "confidence": params.gate.confidence, "min_groups": params.gate.min_subgroup_groups,
        **_scores(paired, other, second.units, params.gate, params.seed),
        "params": differing(first.params, second.params), "code": code_differences(first.lineage, second.lineage),
        "data": data_differences(first, second), "environment": environment_differences(first.lineage, second.lineage),
    }


def _version_facts(version: Version) -> dict[str, Any]:
    return {"name": version.name, "version": version.number, "aliases": list(version.aliases), "run_id": version.run_id,
            "verdict": version.verdict, "reason": version.tags.get("heartml.reason"), "created_ms": version.created_ms}


@dataclass(frozen=True, eq=False)
class PairedPredictions:
    """Both versions' predictions about the same units, in the same order.

    Attributes:
        trained: units held out by both, but left out because one version was trained on their group.
        alone: how many units only the first, and only the second version predicted.
        relabelled: units whose label differs.
        absent: classes that the second's held-out units have and no compared unit has.
    """

    first: LabelledPredictions
    second: LabelledPredictions
    trained: int
    alone: tuple[int, int]
    relabelled: int
    absent: tuple[str, ...]


def pair(first: Side, second: Side) -> PairedPredictions:
    """The predictions of both versions about the units that both can be judged on."""
    fair = (set(champion_comparison.units_not_trained_on(first.folds, second.trained_on))
            & set(champion_comparison.units_not_trained_on(second.folds, first.trained_on)))
    rows = [{unit: row for row, unit in enumerate(side.predictions.unit_ids)} for side in (first, second)]
    both = [unit for unit in rows[1] if unit in rows[0]]
    compared = [unit for unit in both if unit in fair]
    one, other = (side.predictions.take(np.array([of[unit] for unit in compared], dtype=np.intp))
                  for side, of in zip((first, second), rows, strict=True))
    return PairedPredictions(
        one, other, len(both) - len(compared), (len(rows[0]) - len(both), len(rows[1]) - len(both)),
        int((one.labels != other.labels).sum()), champion_comparison.absent_classes(second.predictions, other))


def _scores(
    paired: PairedPredictions, task: Task, columns: pd.DataFrame, params: GateParams, seed: int
) -> dict[str, Any]:
    truth = paired.second
    metrics = [*task_metrics(task), *(METRICS[name] for name in champion_comparison.CALIBRATION)]
    counts = {"units": len(truth.labels), "groups": len(np.unique(truth.groups)), "left_out": {
        "trained": paired.trained, "first_alone": paired.alone[0], "second_alone": paired.alone[1]},
        "least_groups": params.min_groups, "absent": list(paired.absent)}
    if not counts["units"]:
        return {**counts, "relabelled": 0, "metrics": {}, "subgroups": [], "decisions": {}, "by_unit": []}
    return {
        **counts, "relabelled": paired.relabelled,
        "metrics": {metric.name: compare_metric(metric, paired.first, truth, params, seed) for metric in metrics},
        "subgroups": subgroups(METRICS[task.metric], paired, columns, params, seed),
        "decisions": decisions(paired), "by_unit": by_unit(paired),
    }


def compare_metric(
    metric: Metric, first: LabelledPredictions, second: LabelledPredictions, params: GateParams, seed: int
) -> dict[str, Any]:
    """One metric of both versions, each with its interval, and the paired difference, second minus first.

    Returns:
        first, second, difference: {value, low, high}. better: see `better`, or `TOO_FEW`. detectable: see `detectable`.
    """
    sides = {side: (champion_comparison.metric_probabilities(metric, of), of.decisions)
             for side, of in ((FIRST, first), (SECOND, second))}
    found = {side: bootstrap_interval(
        metric, second.labels, *predicted, second.classes, second.groups, resamples=params.bootstrap,
        confidence=params.confidence, rng=np.random.default_rng(seed)) for side, predicted in sides.items()}
    difference = _numbers(paired_bootstrap(
        metric, second.labels, sides[SECOND], sides[FIRST], second.classes, second.groups, resamples=params.bootstrap,
        confidence=params.confidence, rng=np.random.default_rng(seed)))
    enough = len(np.unique(second.groups)) >= params.min_groups
    return {**{side: _numbers(i) for side, i in found.items()}, "difference": difference,
            "better": better(metric, difference) if enough else TOO_FEW, "detectable": detectable(difference)}


def _numbers(found: Any) -> JsonInterval:
    return {key: json_number(value) for key, value in asdict(found).items()}


def better(metric: Metric, difference: JsonInterval) -> str:
    """Which version is better: `first` or `second` if the whole interval lies on one side of zero, else `neither`.

    >>> better(METRICS["uar"], {"value": 0.1, "low": 0.02, "high": 0.2})
    'second'
    >>> better(METRICS["uar"], {"value": 0.1, "low": -0.02, "high": 0.2})
    'neither'
    """
    low, high = difference["low"], difference["high"]
    if low is None or high is None or low <= 0 <= high:
        return NEITHER
    return SECOND if (low > 0) == metric.greater_is_better else FIRST


def detectable(difference: JsonInterval) -> float | None:
    """How large a difference would have to be on these groups for its interval not to reach zero, about.

    It is the longer side of the interval: a difference that is shifted that far has zero at its end. `None` where there
    is no interval, 0 where both versions predict the same.

    >>> round(detectable({"value": 0.05, "low": -0.07, "high": 0.15}), 2)
    0.12
    """
    value, low, high = difference["value"], difference["low"], difference["high"]
    return None if value is None or low is None or high is None else max(value - low, high - value)


def subgroups(
    metric: Metric, paired: PairedPredictions, columns: pd.DataFrame, params: GateParams, seed: int
) -> list[dict[str, Any]]:
    """The task's metric in each subgroup, as `compare_metric`. Subgroups that are too small have only their counts.

    Args:
        columns: indexed by unit_id, one column for each way to divide the units.
    """
    of_units, found = columns.reindex(paired.second.unit_ids), []
    for column in of_units:
        for value in sorted(of_units[column].dropna().unique()):
            rows: NDArray[np.bool_] = (of_units[column] == value).fillna(False).to_numpy(bool)
            one, other = paired.first.take(rows), paired.second.take(rows)
            groups = len(np.unique(other.groups))
            estimable = groups >= params.min_subgroup_groups
            found.append({"division": str(column), "value": str(value), "units": len(other.labels), "groups": groups,
                          "estimable": estimable,
                          **(compare_metric(metric, one, other, params, seed) if estimable else {})})
    return found


def decisions(paired: PairedPredictions) -> dict[str, int]:
    """On how many units both versions were right, only one, or neither."""
    one, other = (side.decisions == paired.second.labels for side in (paired.first, paired.second))
    return {"both_right": int((one & other).sum()), "first_alone_right": int((one & ~other).sum()),
            "second_alone_right": int((~one & other).sum()), "both_wrong": int((~one & ~other).sum())}


def by_unit(paired: PairedPredictions) -> list[dict[str, Any]]:
    """For each unit, both versions' decisions and the calibrated probability that they gave to the true class."""
    truth, rows = paired.second, np.arange(len(paired.second.labels))
    of_truth = [side.calibrated[rows, truth.labels] for side in (paired.first, truth)]
    return [{"unit_id": str(truth.unit_ids[row]), "label": truth.classes[truth.labels[row]],
             **{side: {"decision": truth.classes[of.decisions[row]], "truth": float(p[row])}
                for side, of, p in zip((FIRST, SECOND), (paired.first, truth), of_truth, strict=True)}} for row in rows]


def flatten(values: Any, prefix: str = "") -> dict[str, str]:
    """Nested parameters as one level of names and YAML texts.

    >>> flatten({"seed": 1, "search": {"trials": 20, "heads": ["linear"]}})
    {'seed': '1', 'search.trials': '20', 'search.heads': '[linear]'}
    """
    if isinstance(values, Mapping):
        return {name: text for key, value in values.items() for name, text in flatten(value, f"{prefix}{key}.").items()}
    return {prefix[:-1]: yaml.safe_dump(values, default_flow_style=True, width=10_000).split("\n...")[0].strip()}


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The keys whose values differ, with both values; `None` where one side has none.

    >>> differing({"seed": "1", "trials": "20"}, {"seed": "2", "trials": "20"})
    {'seed': ['1', '2']}
    """
    return {key: [first.get(key), second.get(key)] for key in sorted({*first, *second})
            if first.get(key) != second.get(key)}


def code_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Commits, and the code files whose bytes differ, as `dvc.lock` named them when the stages ran."""
    read = [{dep["path"]: dep.get("md5") for stage in facts["stages"].values() for dep in stage.get("deps", [])
             if str(dep["path"]).startswith(_OWN_CODE)} for facts in (first, second)]
    return {"commits": [facts["code"]["commit"] for facts in (first, second)],
            "dirty": [facts["code"]["dirty"] for facts in (first, second)], "files": sorted(differing(*read))}


def data_differences(first: Side, second: Side) -> dict[str, Any]:
    """Data versions, and how many recordings are in both, in one only, or moved to the other side of the split."""
    part = [dict(zip(side.folds["recording_id"], side.folds["part"] == TEST, strict=True)) for side in (first, second)]
    both = set(part[0]) & set(part[1])
    return {"hashes": [side.lineage["data"]["hash"] for side in (first, second)], "in_both": len(both),
            "first_alone": len(set(part[0]) - both), "second_alone": len(set(part[1]) - both),
            "moved": sum(part[0][one] != part[1][one] for one in both)}


def environment_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Packages, Python and hardware that differ."""
    both = [{**{k: v for k, v in facts["environment"].items() if k != "packages"}, **facts["environment"]["packages"]}
            for facts in (first, second)]
    return differing(*both)


def with_local_units(side: Side) -> Side:
    """The same side, with the units' columns read from this folder's data if an older run does not keep them."""
    if len(side.units) or not paths.RECORDINGS.exists():
        return side
    recordings = pd.read_parquet(paths.RECORDINGS, columns=["recording_id", *assessment.DESCRIPTION_COLUMNS])
    joined = side.folds[side.folds["part"] == TEST].merge(recordings, on="recording_id")
    return Side(side.version, side.task, side.predictions, side.folds,
                joined.groupby("unit_id")[list(assessment.DESCRIPTION_COLUMNS)].first(), side.params, side.lineage)
