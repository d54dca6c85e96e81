"""Two registered versions beside each other: scores on the units that both can be judged on, what they were made of.

In: what the runs of both keep. Out: plain values for JSON. Differences are the second minus the first, paired over the
same units and resampled by group; labels and groups are the second's. A unit counts that both answered when it was held
out, and whose whole group neither was trained on.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from heartml.core import paths
from heartml.core.config import GateParams, Params
from heartml.core.schema import TEST
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import read_json, scratch
from heartml.core.tasks import Task, resolve
from heartml.evaluation import assessment
from heartml.metrics import METRICS, Metric, bootstrap_interval, paired_bootstrap
from heartml.metrics.scores import Number, Scored, number, task_metrics
from heartml.registry import tracking
from heartml.registry.versions import Version
from heartml.release import gate, gate_inputs

if TYPE_CHECKING:
    from heartml.registry.tracking import Client

FIRST, SECOND, NEITHER, TOO_FEW = "first", "second", "neither", "too few groups"
_OWN_CODE = ("heartml/", "flows/")


class Incomparable(HeartMLError):  # noqa: N818 - reads as what is the case
    """The two cannot be held against each other; the message says why."""


@dataclass(frozen=True, eq=False)
class Side:
    """One version and what its run keeps.

    Attributes:
        answers: to its held-out units.
        folds: schema.FOLDS, what it was trained on and what was held out.
        known: of each held-out unit (source, age group, sex), indexed by unit_id; empty where nothing is.
        params: flat, `search.trials` -> text.
        lineage: `lineage.json`.
    """

    version: Version
    answers: Scored
    folds: pd.DataFrame
    known: pd.DataFrame
    params: Mapping[str, str]
    lineage: Mapping[str, Any]

    @property
    def trained_on(self) -> frozenset[str]:
        """Recording ids."""
        return frozenset(self.folds.loc[self.folds["part"] != TEST, "recording_id"])


def load(client: "Client", version: Version) -> Side:
    """Fetch one side.

    Raises:
        Incomparable: its run does not keep what is needed.
    """
    task = resolve(version.name).task
    with scratch() as folder:
        there = tracking.stored(client, version.run_id)
        lost = [name for name in ("evaluation", "folds.parquet", "params.yaml", "lineage.json") if name not in there]
        if lost:
            raise Incomparable(f"{version.name} version {version.number}: its run does not keep {', '.join(lost)}")
        table = pd.read_parquet(tracking.fetch(client, version.run_id, "evaluation/predictions.parquet", folder))
        folds = pd.read_parquet(tracking.fetch(client, version.run_id, "folds.parquet", folder))
        params = yaml.safe_load(tracking.fetch(client, version.run_id, "params.yaml", folder).read_text("utf-8"))
        facts = read_json(tracking.fetch(client, version.run_id, "lineage.json", folder))
        known = pd.DataFrame(columns=list(assessment.DESCRIBES))
        if gate_inputs.KNOWN in there:
            known = pd.read_csv(tracking.fetch(client, version.run_id, gate_inputs.KNOWN, folder), dtype="string",
                                index_col="unit_id", keep_default_na=False, na_values=[""])
    return Side(version, Scored.of(table, task.classes), folds, known, flat(params), facts)


def compare(first: Side, second: Side, params: Params) -> dict[str, Any]:
    """Everything that differs, and by how much.

    Raises:
        Incomparable: the two answer other questions.
    """
    one, other = (resolve(side.version.name).task for side in (first, second))
    if (one.classes, one.unit) != (other.classes, other.unit):
        raise Incomparable(f"{first.version.name} and {second.version.name} answer other questions: {one.unit}s into "
                           f"{', '.join(one.classes)}; {other.unit}s into {', '.join(other.classes)}")
    paired = pair(first, second)
    return {
        **{side: _told(of.version) for side, of in ((FIRST, first), (SECOND, second))},
        "task": other.name, "metric": other.metric, "unit": other.unit, "classes": list(other.classes),
        "confidence": params.gate.confidence, "min_groups": params.gate.min_subgroup_groups,
        **_judged(paired, other, second.known, params.gate, params.seed),
        "params": different(first.params, second.params), "code": code(first.lineage, second.lineage),
        "data": data(first, second), "environment": environment(first.lineage, second.lineage),
    }


def _told(version: Version) -> dict[str, Any]:
    return {"name": version.name, "version": version.number, "aliases": list(version.aliases), "run_id": version.run_id,
            "verdict": version.verdict, "reason": version.tags.get("heartml.reason"), "created_ms": version.created_ms}


@dataclass(frozen=True, eq=False)
class Pair:
    """Both sides' answers to the same units, in the same order, with the same labels and groups.

    Attributes:
        trained: units held out on both sides of which one side heard the group in training.
        alone: units that only the first, and only the second was asked about.
        relabelled: units whose label differs.
        absent: classes that the second's held-out units have and none of these.
    """

    first: Scored
    second: Scored
    trained: int
    alone: tuple[int, int]
    relabelled: int
    absent: tuple[str, ...]


def pair(first: Side, second: Side) -> Pair:
    """The units that both can be judged on."""
    fair = set(gate.untrained(first.folds, second.trained_on)) & set(gate.untrained(second.folds, first.trained_on))
    rows = [{unit: row for row, unit in enumerate(side.answers.unit_ids)} for side in (first, second)]
    both = [unit for unit in rows[1] if unit in rows[0]]
    kept = [unit for unit in both if unit in fair]
    mine, theirs = (side.answers.take(np.array([of[unit] for unit in kept], dtype=np.intp))
                    for side, of in zip((first, second), rows, strict=True))
    return Pair(mine, theirs, len(both) - len(kept), (len(rows[0]) - len(both), len(rows[1]) - len(both)),
                int((mine.labels != theirs.labels).sum()), gate.absent(second.answers, theirs))


def _judged(paired: Pair, task: Task, known: pd.DataFrame, params: GateParams, seed: int) -> dict[str, Any]:
    truth, metrics = paired.second, [*task_metrics(task), *(METRICS[name] for name in gate.CALIBRATION)]
    counts = {"units": len(truth.labels), "groups": len(np.unique(truth.groups)), "left_out": {
        "trained": paired.trained, "first_alone": paired.alone[0], "second_alone": paired.alone[1]},
        "least_groups": params.min_groups, "absent": list(paired.absent)}
    if not counts["units"]:
        return {**counts, "relabelled": 0, "metrics": {}, "subgroups": [], "decisions": {}, "by_unit": []}
    return {
        **counts, "relabelled": paired.relabelled,
        "metrics": {metric.name: measured(metric, paired.first, truth, params, seed) for metric in metrics},
        "subgroups": subgroups(METRICS[task.metric], paired, known, params, seed),
        "decisions": decisions(paired), "by_unit": by_unit(paired),
    }


def measured(metric: Metric, first: Scored, second: Scored, params: GateParams, seed: int) -> dict[str, Any]:
    """One metric of both, each with its interval, and the paired difference, second minus first."""
    sides = {side: (gate.shown(metric, of), of.decisions) for side, of in ((FIRST, first), (SECOND, second))}
    found = {side: bootstrap_interval(
        metric, second.labels, *said, second.classes, second.groups, resamples=params.bootstrap,
        confidence=params.confidence, rng=np.random.default_rng(seed)) for side, said in sides.items()}
    difference = _numbers(paired_bootstrap(
        metric, second.labels, sides[SECOND], sides[FIRST], second.classes, second.groups, resamples=params.bootstrap,
        confidence=params.confidence, rng=np.random.default_rng(seed)))
    enough = len(np.unique(second.groups)) >= params.min_groups
    return {**{side: _numbers(i) for side, i in found.items()}, "difference": difference,
            "better": better(metric, difference) if enough else TOO_FEW}


def _numbers(found: Any) -> Number:
    return {key: number(value) for key, value in asdict(found).items()}


def better(metric: Metric, difference: Number) -> str:
    """Which side is better beyond what chance explains: the whole interval lies on one side of zero."""
    low, high = difference["low"], difference["high"]
    if low is None or high is None or low <= 0 <= high:
        return NEITHER
    return SECOND if (low > 0) == metric.greater_is_better else FIRST


def subgroups(
    metric: Metric, paired: Pair, known: pd.DataFrame, params: GateParams, seed: int
) -> list[dict[str, Any]]:
    """The task's metric in each subgroup that is large enough, as `measured`; of the others the counts alone."""
    of_units, found = known.reindex(paired.second.unit_ids), []
    for column in of_units:
        for value in sorted(of_units[column].dropna().unique()):
            rows: NDArray[np.bool_] = (of_units[column] == value).fillna(False).to_numpy(bool)
            mine, theirs = paired.first.take(rows), paired.second.take(rows)
            groups = len(np.unique(theirs.groups))
            estimable = groups >= params.min_subgroup_groups
            found.append({"division": str(column), "value": str(value), "units": len(theirs.labels), "groups": groups,
                          "estimable": estimable,
                          **(measured(metric, mine, theirs, params, seed) if estimable else {})})
    return found


def decisions(paired: Pair) -> dict[str, int]:
    """On how many units both were right, one alone, or neither."""
    mine, theirs = (side.decisions == paired.second.labels for side in (paired.first, paired.second))
    return {"both_right": int((mine & theirs).sum()), "first_alone_right": int((mine & ~theirs).sum()),
            "second_alone_right": int((~mine & theirs).sum()), "both_wrong": int((~mine & ~theirs).sum())}


def by_unit(paired: Pair) -> list[dict[str, Any]]:
    """What each said of each unit, and the calibrated probability that it gave to the truth."""
    truth, rows = paired.second, np.arange(len(paired.second.labels))
    sure = [side.calibrated[rows, truth.labels] for side in (paired.first, truth)]
    return [{"unit_id": str(truth.unit_ids[row]), "label": truth.classes[truth.labels[row]],
             **{side: {"decision": truth.classes[of.decisions[row]], "truth": float(p[row])}
                for side, of, p in zip((FIRST, SECOND), (paired.first, truth), sure, strict=True)}} for row in rows]


def flat(values: Any, prefix: str = "") -> dict[str, str]:
    """`search.trials` -> text, of nested parameters."""
    if isinstance(values, Mapping):
        return {name: text for key, value in values.items() for name, text in flat(value, f"{prefix}{key}.").items()}
    return {prefix[:-1]: yaml.safe_dump(values, default_flow_style=True, width=10_000).split("\n...")[0].strip()}


def different(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    """key -> the first's value and the second's, null where it has none, of what is not the same."""
    return {key: [first.get(key), second.get(key)] for key in sorted({*first, *second})
            if first.get(key) != second.get(key)}


def code(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Commits, and the code files whose bytes differ, as the stages of both named them when they ran."""
    read = [{dep["path"]: dep.get("md5") for stage in facts["stages"].values() for dep in stage.get("deps", [])
             if str(dep["path"]).startswith(_OWN_CODE)} for facts in (first, second)]
    return {"commits": [facts["code"]["commit"] for facts in (first, second)],
            "dirty": [facts["code"]["dirty"] for facts in (first, second)], "files": sorted(different(*read))}


def data(first: Side, second: Side) -> dict[str, Any]:
    """Data versions, and how many recordings are in both, in one alone, or on the other side of the split."""
    part = [dict(zip(side.folds["recording_id"], side.folds["part"] == TEST, strict=True)) for side in (first, second)]
    both = set(part[0]) & set(part[1])
    return {"hashes": [side.lineage["data"]["hash"] for side in (first, second)], "in_both": len(both),
            "first_alone": len(set(part[0]) - both), "second_alone": len(set(part[1]) - both),
            "moved": sum(part[0][one] != part[1][one] for one in both)}


def environment(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Packages, Python and hardware that differ."""
    told = [{**{k: v for k, v in facts["environment"].items() if k != "packages"}, **facts["environment"]["packages"]}
            for facts in (first, second)]
    return different(*told)


def local_known(side: Side) -> Side:
    """The side with what this folder's data know of its units, where its run, an older one, does not keep that."""
    if len(side.known) or not paths.RECORDINGS.exists():
        return side
    recordings = pd.read_parquet(paths.RECORDINGS, columns=["recording_id", *assessment.DESCRIBES])
    joined = side.folds[side.folds["part"] == TEST].merge(recordings, on="recording_id")
    return Side(side.version, side.answers, side.folds,
                joined.groupby("unit_id")[list(assessment.DESCRIBES)].first(), side.params, side.lineage)
