"""Compares new recordings with those that a model was trained on.

In: a folder or a table of recordings, and a model with its reference (heartml/inference/monitoring/reference.py). Out:
a `DriftReport` for a page, for JSON and for the terminal.

Recordings are scored through heartml/inference/batch.py, so none is scored twice. Those that the model was trained or
tested on are left out. Only independent recordings are compared: one of each patient. A recording without a patient's
name counts as a patient of its own.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heartml.inference import batch, inputs
from heartml.inference.batch import ScoredBlock, ScoringPlan
from heartml.inference.monitoring import drift, reference
from heartml.inference.monitoring.drift import DRIFT, FEW, SAME, Finding
from heartml.inference.prediction_cache import PredictionCache

Score = Callable[[ScoringPlan], Iterable[ScoredBlock]]
_COLUMNS = ["group_id", "recording_id", "leaning", "confidence"]


@dataclass(frozen=True)
class DriftReport:
    """The result of comparing new recordings with a model's reference.

    Attributes:
        verdict: `drift` where a measure drifted, `too few` where there are too few groups for every measure, else
            `none`.
        task: of the model.
        model, version: where the model comes from, in words; the registry's number.
        files, faults: number of files, and of those that cannot be scored.
        seen: number of files left out because the model was trained or tested on their recording.
        scored: number of units that were scored now and not earlier.
        recordings, groups: number of new recordings, and of independent groups among them.
        unnamed: number of groups without a patient's name.
        alpha: chance of a false alarm, `monitor.alpha` of params.yaml.
        findings: one for each measure.
        cautions: what to know about the models before their predictions are trusted.
    """

    verdict: str
    task: str
    model: str
    version: str | None
    files: int
    faults: int
    seen: int
    scored: int
    recordings: int
    groups: int
    unnamed: int
    alpha: float
    findings: tuple[Finding, ...]
    cautions: tuple[str, ...] = ()

    @property
    def drifted(self) -> tuple[Finding, ...]:
        """The measures that drifted."""
        return tuple(finding for finding in self.findings if finding.state == DRIFT)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values, without the classifier's scores, which only the page uses."""
        whole = asdict(self)
        whole["findings"] = [{**finding.pop("measure"), **{k: v for k, v in finding.items() if k != "scores"}}
                             for finding in whole["findings"]]
        return whole


@dataclass(frozen=True)
class MonitoredData:
    """A report, and the two tables behind it with one recording of each independent group."""

    report: DriftReport
    reference: pd.DataFrame
    new: pd.DataFrame


def run(source: Path, model: str | None, task: str | None) -> MonitoredData:
    """Score and compare everything behind `source` in this process, with a progress bar.

    Raises:
        InputsError, NoModel: see `batch.plan`, also for the arguments.
        NoReference: nothing is known of the recordings that the model was trained on.
    """
    return compare_recordings(batch.plan(source, model, task), batch.score_blocks)


def compare_recordings(plan: ScoringPlan, score: Score) -> MonitoredData:
    """Score the new recordings and compare them with the reference of the model.

    Args:
        score: scores the blocks of a plan, in their order.

    Raises:
        NoReference: nothing is known of the recordings that the model was trained on.
    """
    of_model, known = reference.read(plan.located, plan.facts.task)
    with batch.locked(plan):
        collected = _collect(plan, score(plan), known)
        drawn = reference.at_most(plan.params.monitor.most_groups, reference.one_per_group(collected.rows))
        new = _with_measurements(plan, drawn)
    base = reference.at_most(plan.params.monitor.most_groups, of_model)
    # Held-out groups beyond that number are compared by their predictions alone.
    held_out = of_model[of_model["confidence"].notna() & ~of_model["group_id"].isin(base["group_id"])]
    whole = pd.concat([base, held_out.assign(**dict.fromkeys(_MEASURED, None))]) if len(held_out) else base
    findings = drift.compare(whole, new, plan.params.monitor, np.random.default_rng(plan.params.seed))
    return MonitoredData(_report(plan, collected, findings), of_model, new)


_MEASURED = (*reference.MEASURED, "embedding")


@dataclass(frozen=True)
class _Collected:
    """New recordings, one row each with `_COLUMNS` and `named` (whether the patient is known); and three counts."""

    rows: pd.DataFrame
    faults: int
    seen: int
    scored: int


def _collect(plan: ScoringPlan, blocks: Iterable[ScoredBlock], known: frozenset[str]) -> _Collected:
    groups = inputs.units(plan.items, "patient")
    rows: list[dict[str, Any]] = []
    faults = seen = scored = 0
    for positions, block in zip(plan.blocks, blocks, strict=True):
        scored += block.scored
        for position, row in zip(sorted(positions), block.rows, strict=True):
            faults += "fault" in row
            seen += row.get("recording_id") in known
            if "fault" not in row and row["recording_id"] not in known:
                named = plan.items[position].patient_id is not None
                own = {name: row.get(name) for name in _COLUMNS}
                rows.append({**own, "group_id": groups[position], "named": named})
    return _Collected(pd.DataFrame(rows, columns=[*_COLUMNS, "named"]), faults, seen, scored)


def _with_measurements(plan: ScoringPlan, drawn: pd.DataFrame) -> pd.DataFrame:
    """The drawn recordings with the measurements and embeddings from when they were scored."""
    with PredictionCache.open(plan.cache_file) as cache:
        found = cache.measurements(list(drawn["recording_id"]))
    rows = [{**found[i][0], "embedding": np.frombuffer(found[i][1], np.float32)} for i in drawn["recording_id"]]
    measured = pd.DataFrame(rows, columns=list(_MEASURED), index=drawn.index)
    return pd.concat([drawn, measured], axis=1)


def _report(plan: ScoringPlan, collected: _Collected, findings: Sequence[Finding]) -> DriftReport:
    states = {finding.state for finding in findings}
    verdict = DRIFT if DRIFT in states else FEW if states == {FEW} else SAME
    groups = collected.rows.drop_duplicates("group_id")
    return DriftReport(
        verdict, plan.facts.task, plan.located.description, plan.located.version, len(plan.items), collected.faults,
        collected.seen, collected.scored, collected.rows["recording_id"].nunique(), len(groups),
        int((~groups["named"].astype(bool)).sum()), plan.params.monitor.alpha, tuple(findings), plan.cautions)
