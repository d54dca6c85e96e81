"""Predictions of two models of known skill for the same 120 units, compared and judged by the gate."""

import numpy as np
import pandas as pd

from heartml.core.config import GateParams
from heartml.core.tasks import TASKS
from heartml.evaluation.baselines import BASELINES
from heartml.metrics import METRICS
from heartml.metrics.bootstrap import Difference
from heartml.metrics.scores import LabelledPredictions
from heartml.release import champion_comparison, champion_criteria, gate, looks
from heartml.release.champion_comparison import Champion
from heartml.release.champion_criteria import PLAIN, Policy
from heartml.release.gate import Evidence
from heartml.release.looks import Look

TASK = TASKS["murmur"]
PARAMS = GateParams(confidence=0.95, bootstrap=500, min_groups=5, subgroup_margin=0.05, min_subgroup_groups=10,
                    calibration_margin=0.05, calibration_limit=0.15, catch_up_recordings=0)
UNITS = 120
AHEAD = Difference(0.3, 0.1, 0.5, 0.01)
WITH_CHAMPION = Evidence(24, 96, Look(1, 0.95), certain=False, first=False)
FIRST = Evidence(24, 96, looks.take(1, 0.95), certain=True, first=True)
TITLES = {name: floor.title for name, floor in BASELINES.items()}


def answers(
    skill: float, *, seed: int, wrong: np.ndarray | None = None, right: np.ndarray | None = None
) -> LabelledPredictions:
    """Answers to the same units, right with probability `skill`; never where `wrong`, always where `right` [units]."""
    labels = np.random.default_rng(7).integers(0, 3, UNITS)
    hit = np.random.default_rng(seed).random(UNITS) < skill
    hit = (hit if right is None else hit | right) & ~(np.zeros(UNITS, bool) if wrong is None else wrong)
    decisions = np.where(hit, labels, (labels + 1) % 3)
    names = np.array(TASK.classes)
    table = pd.DataFrame({
        "unit_id": [f"unit-{n:03}" for n in range(UNITS)], "group_id": [f"group-{n // 2:03}" for n in range(UNITS)],
        "label": names[labels], "part": "test", "decision": names[decisions],
    })
    for kind in "pc":
        table[[f"{kind}_{name}" for name in names]] = np.eye(3)[decisions] * 0.7 + 0.1
    return LabelledPredictions.from_table(table, TASK.classes)


def folds(scored: LabelledPredictions) -> pd.DataFrame:
    """Two recordings a unit, in the unit's part."""
    rows = [{"recording_id": f"{unit}-{r}", "unit_id": unit, "group_id": group, "label": "Absent", "part": part}
            for unit, group, part in zip(scored.unit_ids, scored.groups, scored.parts, strict=True) for r in range(2)]
    return pd.DataFrame(rows, columns=["recording_id", "unit_id", "group_id", "label", "part"])


def known(scored: LabelledPredictions) -> pd.DataFrame:
    return pd.DataFrame({"sex": np.where(np.arange(len(scored.unit_ids)) % 4 < 2, "Female", "Male")},
                        index=scored.unit_ids)


def compare(
    challenger: LabelledPredictions, champion: LabelledPredictions | None, trained_on: frozenset[str] = frozenset(),
    look: int = 1, new: frozenset[str] = frozenset(), params: GateParams = PARAMS,
) -> champion_comparison.Comparison | None:
    """Compared on the units of both; the champion was also trained on the recordings `trained_on`, in fold 9."""
    own = folds(challenger if champion is None else champion)
    own.loc[own["recording_id"].isin(trained_on), "part"] = "9"
    return champion_comparison.compare(
        TASK, challenger, Champion("3", champion, own[["recording_id", "part"]], new), folds(challenger),
        known(challenger), params, np.random.default_rng(0), looks.take(look, params.confidence))


def verdict(
    comparison: champion_comparison.Comparison | None, *, against: dict | None = None, problems: tuple[str, ...] = (),
    policy: Policy = PLAIN,
) -> gate.Verdict:
    metric = METRICS[TASK.metric]
    criteria = [
        champion_criteria.better_than_champion("3", comparison, PARAMS, policy),
        champion_criteria.metric_holds(metric, comparison, PARAMS, policy),
        champion_criteria.no_subgroup_loses(comparison, PARAMS.subgroup_margin),
        champion_criteria.as_well_calibrated(comparison, PARAMS.calibration_margin),
        gate.beats_baselines(metric, 0.8, against or {"source": AHEAD}, TITLES, WITH_CHAMPION),
        gate.no_problems("lineage", problems, "complete"),
    ]
    return gate.decide(criteria, comparison, first=False)
