"""Register a pre-trained encoder: probe it on tasks that it did not hear, ask its gate, store weights and curves.

In: what `heartml pretrain` made, and the names of tasks. Out: a version of `heartml-encoder-heart` (`-masked`, ...) in
the registry, with its verdict, and an MLflow run with the loss curves. Where snapshots were kept on the way, they are
probed too, and the run has the score by step.

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
from heartml.training.pretraining.vit import outputs as vit_outputs

HEART = "heart"
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


@dataclass(frozen=True)
class _Files:
    """What a pre-training left.

    Attributes:
        kind: of the encoder.
        weights: the file.
        snapshots: step -> weights at that step.
    """

    kind: str
    weights: Path
    snapshots: Mapping[int, Path]


def release(tasks: Sequence[str], params: Params, encoder: str = HEART) -> tuple[Version, list[Criterion]]:
    """Probe, judge and register the encoder in `artifacts/pretrain/<encoder>`.

    Args:
        tasks: of which it heard no group.
        encoder: `heart`, or the method by which a transformer was trained.

    Raises:
        EncoderReleaseError: it has not been trained.
        HeardError: it heard a group of a task.
        ProbeError: a task cannot be probed.
    """
    folder = paths.pretrained(encoder)
    own = _files(folder, encoder)
    digest = sha256_file(own.weights)
    name = f"{encoder}_{digest[:8]}"
    steps = {f"{name}_{step}": step for step in own.snapshots}
    files = {name: own.weights, **{f"{name}_{step}": file for step, file in own.snapshots.items()}}
    plan = probe.plan(tasks, list(files), _with_encoders(params, own.kind, files))
    left_out = {plan.control_of.get(one) for one in steps} - {plan.control_of.get(name)}     # that of the end is enough
    found = probe.run(plan, (probe.probe_encoder(plan, *job) for job in plan.jobs if job[1] not in left_out))
    criteria = judge(name, found)
    return _register(encoder, digest, found, criteria, {**steps, name: None}), criteria


def _files(folder: Path, encoder: str) -> _Files:
    """The files in `folder`.

    Raises:
        EncoderReleaseError: the weights are not here.
    """
    if encoder == HEART:
        found, kind = [folder / outputs.WEIGHTS], HEART
    else:
        found, kind = sorted(folder.glob(f"*/{vit_outputs.WEIGHTS}")), vit_outputs.KIND
    if not found or not found[0].exists():
        command = "`heartml pretrain`" if encoder == HEART else f"`heartml pretrain --method {encoder}`"
        raise EncoderReleaseError(f"{(found or [folder])[0]}: not here. {command} trains it")
    places = folder.glob(f"{vit_outputs.SNAPSHOTS}/*/*/{vit_outputs.WEIGHTS}")
    snapshots = {int(file.parent.parent.name): file for file in places}
    return _Files(kind, found[0], dict(sorted(snapshots.items())))


def _with_encoders(params: Params, kind: str, files: Mapping[str, Path]) -> Params:
    """The parameters with these weights declared, each with the poolings of its kind."""
    sections = {name: {"kind": kind, "weights": str(file), "sha256": sha256_file(file)} for name, file in files.items()}
    poolings = params.search.poolings
    if kind in poolings:
        poolings = {**poolings, **dict.fromkeys(files, poolings[kind])}
    return params.model_copy(update={"encoder_parameters": {**params.encoder_parameters, **sections},
                                     "search": params.search.model_copy(update={"poolings": poolings})})


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


def _register(encoder: str, digest: str, found: Mapping[str, Any], criteria: Sequence[Criterion],
              steps: Mapping[str, int | None]) -> Version:
    """Write the run and the version; `steps`: of each probed snapshot, `None` at the end."""
    folder = paths.pretrained(encoder)
    client = tracking.connect()
    facts = read_json(folder / outputs.FACTS)
    passed = all(one.passed for one in criteria)
    scores = {task: {row["encoder"]: row["scores"]["chosen"]["macro_auc"]["value"] for row in own["encoders"]}
              for task, own in found["tasks"].items()}
    lines = curves(folder / outputs.CURVES)
    if len(steps) > 1:
        last = int(facts["parameters"]["steps"])
        lines |= {f"probe_by_step/{task}": {step or last: own[name] for name, step in steps.items()}
                  for task, own in scores.items()}
    with tracking.run(client, encoder_versions.registered_name(encoder), f"{encoder} {digest[:8]}") as run_id:
        tracking.log(client, run_id, RunRecord(
            {key: str(value) for key, value in facts["parameters"].items()},
            {f"probe/{task}/{name}": value for task, own in scores.items() for name, value in own.items()
             if steps.get(name) is None},
            {"heartml.encoder": encoder, "heartml.sha256": digest, "mlflow.source.name": "heartml pretrain"}))
        tracking.log_curves(client, run_id, lines)
        tracking.log_files(client, run_id, {encoder_versions.WEIGHTS: folder})
    return encoder_versions.register(
        client, encoder, run_id=run_id, key=digest, passed=passed,
        verdict={one.name: f"{'passed' if one.passed else 'failed'}: {one.words}" for one in criteria})


def curves(file: Path) -> dict[str, dict[int, float]]:
    """`loss/<name>` -> step -> value, of the file that pre-training wrote."""
    table = pd.read_csv(file).set_index("step")
    return {f"loss/{name}": {int(step): float(value) for step, value in column.items()}  # type: ignore[call-overload]
            for name, column in table.items()}
