"""Is what comes in now like what the model learnt from? New recordings are scored, measured and compared.

In: a folder or a table of recordings, and a model with its reference (heartml/inference/monitoring/reference.py). Out:
a `Watch`,
for a page, for JSON, for the terminal. Recordings are scored through heartml/inference/batch.py, so none is scored
twice,
and recordings that the model learnt from or was tested on are left out. Groups are the independent things: of each
patient one recording is drawn; where no patient is named, every recording counts as a patient of its own.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heartml.inference import batch, inputs
from heartml.inference.batch import Block, Work
from heartml.inference.monitoring import drift, reference
from heartml.inference.monitoring.drift import DRIFT, FEW, SAME, Finding
from heartml.inference.prediction_cache import PredictionCache

Score = Callable[[Work], Iterable[Block]]
_ANSWER = ["group_id", "recording_id", "leaning", "confidence"]


@dataclass(frozen=True)
class DriftReport:
    """What one look at new recordings found.

    Attributes:
        verdict: `drift` where a measure drifted, `too few` where there is not enough to say of any, else `none`.
        task, model, version: whose; in words, and the registry's number.
        files, faults: that were looked at, and that cannot be scored.
        seen: files whose recording the model learnt from or was tested on; left out.
        scored: units that were scored now, and not before.
        recordings, groups: new ones, and independent groups of them.
        unnamed: of the groups those without a patient's name.
        findings: one for each measure.
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

    @property
    def drifted(self) -> tuple[Finding, ...]:
        """The measures that drifted."""
        return tuple(finding for finding in self.findings if finding.state == DRIFT)

    def as_json(self) -> dict[str, Any]:
        """Plain values; without the classifier's scores, which are for a picture."""
        whole = asdict(self)
        whole["findings"] = [{**finding.pop("measure"), **{k: v for k, v in finding.items() if k != "scores"}}
                             for finding in whole["findings"]]
        return whole


@dataclass(frozen=True)
class MonitoredData:
    """A look, and the two tables of independent groups behind it."""

    watch: DriftReport
    reference: pd.DataFrame
    new: pd.DataFrame


def run(source: Path, model: str | None, task: str | None) -> MonitoredData:
    """Look at everything behind `source`, in this process, with a bar; see `batch.plan` for `model` and `task`."""
    return compare_recordings(batch.plan(source, model, task), batch.here)


def compare_recordings(work: Work, score: Score) -> MonitoredData:
    """Score what is new, compare it with the reference of the model.

    Raises:
        NoReference: the model has none.
    """
    of_model, known = reference.of(work.located, work.facts.task)
    with batch.alone(work):
        collected = _collect(work, score(work), known)
        drawn = reference.thinned(reference.drawn(collected.rows), work.params.monitor.most_groups)
        new = _measured(work, drawn)
    base = reference.thinned(of_model, work.params.monitor.most_groups)
    held_out = of_model[of_model["confidence"].notna() & ~of_model["group_id"].isin(base["group_id"])]
    whole = pd.concat([base, held_out.assign(**dict.fromkeys(_MEASURED, None))]) if len(held_out) else base
    findings = drift.compare(whole, new, work.params.monitor, np.random.default_rng(work.params.seed))
    return MonitoredData(_watch(work, collected, findings), of_model, new)


_MEASURED = (*reference.MEASURED, "embedding")


@dataclass(frozen=True)
class _Collected:
    """Scored recordings that are new, one row each with `_ANSWER` and `named`; and what was counted on the way."""

    rows: pd.DataFrame
    faults: int
    seen: int
    scored: int


def _collect(work: Work, done: Iterable[Block], known: frozenset[str]) -> _Collected:
    groups = inputs.units(work.items, "patient")
    rows: list[dict[str, Any]] = []
    faults = seen = scored = 0
    for positions, block in zip(work.blocks, done, strict=True):
        scored += block.scored
        for position, row in zip(sorted(positions), block.rows, strict=True):
            faults += "fault" in row
            seen += row.get("recording_id") in known
            if "fault" not in row and row["recording_id"] not in known:
                named = work.items[position].patient_id is not None
                rows.append({**{name: row.get(name) for name in _ANSWER}, "group_id": groups[position], "named": named})
    return _Collected(pd.DataFrame(rows, columns=[*_ANSWER, "named"]), faults, seen, scored)


def _measured(work: Work, drawn: pd.DataFrame) -> pd.DataFrame:
    """The drawn recordings with what was measured of them when they were scored."""
    with PredictionCache.open(work.ledger) as kept:
        found = kept.measured(list(drawn["recording_id"]))
    rows = [{**found[i][0], "embedding": np.frombuffer(found[i][1], np.float32)} for i in drawn["recording_id"]]
    measured = pd.DataFrame(rows, columns=list(_MEASURED), index=drawn.index)
    return pd.concat([drawn, measured], axis=1)


def _watch(work: Work, collected: _Collected, findings: Sequence[Finding]) -> DriftReport:
    states = {finding.state for finding in findings}
    verdict = DRIFT if DRIFT in states else FEW if states == {FEW} else SAME
    groups = collected.rows.drop_duplicates("group_id")
    return DriftReport(
        verdict, work.facts.task, work.located.words, work.located.version, len(work.items), collected.faults,
        collected.seen, collected.scored, collected.rows["recording_id"].nunique(), len(groups),
        int((~groups["named"].astype(bool)).sum()), work.params.monitor.alpha, tuple(findings))
