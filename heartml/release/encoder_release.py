"""Register a pre-trained encoder: probe it on tasks that it did not hear, ask its gate, store weights and curves.

In: what `heartml pretrain` made, and the names of tasks. Out: a version of `heartml-encoder-heart` in the registry,
with its verdict, and an MLflow run with the loss curves.

The gate's criteria are paired differences in AUC by the probe, with intervals over groups. On every task the encoder is
better than random weights of the same shape for certain. On no task is it worse than `logspec` for certain, and on one
at least it is better for certain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from heartml.core import paths
from heartml.core.config import Params
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import read_json
from heartml.core.system.hashing import sha256_file
from heartml.evaluation import probe
from heartml.metrics.scores import interval_text
from heartml.registry import encoder_versions, tracking
from heartml.registry.tracking import RunRecord
from heartml.registry.versions import Version
from heartml.training.pretraining import outputs

KIND = "heart"
AGAINST_RANDOM, AGAINST_LOGSPEC, BETTER_ONCE = "against_random", "against_logspec", "better_once"


class EncoderReleaseError(HeartMLError):
    """There is nothing to register; the message says what to run first."""


@dataclass(frozen=True)
class Criterion:
    """One criterion of the gate.

    Attributes:
        name: its name and the task, as the version's tag has it.
        words: the numbers.
    """

    name: str
    passed: bool
    words: str


def release(tasks: Sequence[str], params: Params) -> tuple[Version, list[Criterion]]:
    """Probe, judge and register the encoder in `artifacts/pretrain/heart`.

    Args:
        tasks: of which it heard no group.

    Raises:
        EncoderReleaseError: it has not been trained.
        HeardError: it heard a group of a task.
        ProbeError: a task cannot be probed.
    """
    folder = paths.pretrained(KIND)
    weights = folder / outputs.WEIGHTS
    if not weights.exists():
        raise EncoderReleaseError(f"{weights}: not here. `heartml pretrain` trains it")
    digest = sha256_file(weights)
    own = {"weights": str(weights), "sha256": digest}
    name = f"{KIND}_{digest[:8]}"
    with_it = params.model_copy(update={"encoder_parameters": {**params.encoder_parameters,
                                                               name: {"kind": KIND, **own}}})
    poolings = params.search.poolings.get(KIND, ())
    plan = probe.plan(tasks, [name], with_it.model_copy(update={"search": params.search.model_copy(update={
        "poolings": {**params.search.poolings, name: poolings}})}) if poolings else with_it)
    found = probe.run(plan, (probe.probe_encoder(plan, *job) for job in plan.jobs))
    criteria = judge(name, found)
    return _register(folder, digest, found, criteria), criteria


def judge(encoder: str, found: Mapping[str, Any]) -> list[Criterion]:
    """The criteria of the gate.

    Args:
        found: the numbers of a probe, see `heartml.evaluation.probe.summary`.
    """
    rows = {task: next(row for row in own["encoders"] if row["encoder"] == encoder)
            for task, own in found["tasks"].items()}
    criteria, better = [], []
    for task, row in rows.items():
        random, logspec = (row[key]["macro_auc"] for key in ("against_random", "against_logspec"))
        criteria.append(Criterion(f"{AGAINST_RANDOM}.{task}", (random["low"] or 0) > 0,
                                  f"AUC {interval_text(random)} above random weights"))
        worse = logspec["high"] is not None and logspec["high"] < 0
        words = f"AUC {interval_text(logspec)} above logspec"
        criteria.append(Criterion(f"{AGAINST_LOGSPEC}.{task}", not worse, words))
        if (logspec["low"] or 0) > 0:
            better.append(task)
    words = f"better than logspec for certain on {', '.join(better) or 'no task'}"
    return [*criteria, Criterion(BETTER_ONCE, bool(better), words)]


def _register(folder: Path, digest: str, found: Mapping[str, Any], criteria: Sequence[Criterion]) -> Version:
    client = tracking.connect()
    facts = read_json(folder / outputs.FACTS)
    passed = all(one.passed for one in criteria)
    with tracking.run(client, encoder_versions.registered_name(KIND), f"{KIND} {digest[:8]}") as run_id:
        tracking.log(client, run_id, RunRecord(
            {key: str(value) for key, value in facts["parameters"].items()},
            {f"probe/{task}/{row['encoder']}": row["scores"]["chosen"]["macro_auc"]["value"]
             for task, own in found["tasks"].items() for row in own["encoders"]},
            {"heartml.encoder": KIND, "heartml.sha256": digest, "mlflow.source.name": "heartml pretrain"}))
        tracking.log_curves(client, run_id, curves(folder / outputs.CURVES))
        tracking.log_files(client, run_id, {encoder_versions.WEIGHTS: folder})
    return encoder_versions.register(
        client, KIND, run_id=run_id, key=digest, passed=passed,
        verdict={one.name: f"{'passed' if one.passed else 'failed'}: {one.words}" for one in criteria})


def curves(file: Path) -> dict[str, dict[int, float]]:
    """`loss/<name>` -> step -> value, of the file that pre-training wrote."""
    table = pd.read_csv(file).set_index("step")
    return {f"loss/{name}": {int(step): float(value) for step, value in column.items()}  # type: ignore[call-overload]
            for name, column in table.items()}
