"""After the stages: register the model in `artifacts/`, let the gate judge it, and settle the verdict. Idempotent.

In: a task's name, with all stages fresh. Out: a `ReleaseOutcome`; a version in the registry, its run, and the report.

This changes things outside the project, so a flow does it and no DVC stage. An auditor who reproduces the stages does
not promote anything. A version is identified by its content (`capture.content_key`). If a killed run left a version
half done, it is finished here.
"""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import canonical_json, read_json, replacing, temporary_folder
from heartml.core.system.hashing import sha256_file
from heartml.lineage import capture
from heartml.registry import champions, child_runs, sealing, tracking, versions
from heartml.registry.tracking import PackedModel
from heartml.registry.versions import ChampionChanged, Version
from heartml.release import run_record

if TYPE_CHECKING:
    from heartml.core.config import Params
    from heartml.registry.tracking import Client

FAILED, NOTHING_NEW = "failed", "nothing new"
_TRIES = 3
_SERVING = ("mlflow", "click", "lightgbm", "model-signing", "numpy", "pandas", "pydantic", "pyopenssl", "pyyaml",
            "safetensors", "scikit-learn", "scipy", "soundfile", "timm", "torch", "torchaudio")   # what serving imports


@dataclass(frozen=True)
class ReleaseOutcome:
    """The outcome of a retraining for one task.

    Attributes:
        state: `promoted`, `refused`, `nothing new`, or `failed`.
        reason: the gate's, or the error.
        version, run_id, report: where to look; `None` if a stage failed.
        evaluation: `metrics.json`; empty if a stage failed.
        verdict: `gate.Verdict.as_json()`; empty if a stage failed.
    """

    task: str
    state: str
    reason: str
    version: str | None
    run_id: str | None
    report: str | None
    evaluation: Mapping[str, Any]
    verdict: Mapping[str, Any]


def failure(task: str, reason: str) -> ReleaseOutcome:
    """The outcome of a task of which a stage failed."""
    return ReleaseOutcome(task, FAILED, reason, None, None, None, {}, {})


def publish(
    name: str, params: "Params", used: Mapping[str, Mapping[str, float]], started_ms: int | None = None
) -> ReleaseOutcome:
    """Register, judge, settle and report one task, as far as that is not done yet.

    Args:
        used: stage that ran -> name of a metric of the run -> value: `seconds`, `cpu_seconds`, `peak_memory_mb`.
        started_ms: when the first of them began, in milliseconds since 1970: the start of the run; `None`: now.

    Raises:
        HeartMLError: the champion changed again and again while the version was judged.
    """
    client = tracking.connect()
    versions.follow_journal(client, name)
    before = champions.last(champions.read(client, name))
    key = capture.content_key(name)
    version = versions.find_by_key(client, name, key)
    if version and version.settled:
        return _with_last_decision(before, _known(client, version))
    if version is None:
        version = _register(client, name, key, params, used, started_ms)
    for _ in range(_TRIES):
        if version.verdict is None:
            _judge(client, version, params)
        try:
            settled = versions.settle(client, version)
        except ChampionChanged:
            version = versions.forget_verdict(client, version)
            continue
        versions.close_abandoned(client, name)
        return _with_last_decision(before, _outcome(client, settled, settled.verdict or ""))
    raise HeartMLError(f"{name}: the champion changed {_TRIES} times while version {version.number} was judged. "
                       "Run `heartml retrain` again.")


def _known(client: "Client", version: Version) -> ReleaseOutcome:
    serves = "is the champion" if versions.CHAMPION in version.aliases else f"was {version.verdict}"
    found = _outcome(client, version, NOTHING_NEW)
    return replace(found, reason=f"this model is version {version.number} and {serves}")


def _with_last_decision(before: champions.Entry | None, outcome: ReleaseOutcome) -> ReleaseOutcome:
    """Add the last decision to the outcome's reason, if a person made it. So a retraining never hides it.

    The gate's reason has a retirement in it already.
    """
    if before is None or before.decision.kind not in champions.BY_A_PERSON or before.in_words() in outcome.reason:
        return outcome
    until = "until now " if outcome.state == versions.PROMOTED else ""
    return replace(outcome, reason=f"{outcome.reason}; {until}{before.in_words()}")


def _register(
    client: "Client", name: str, key: str, params: "Params", used: Mapping[str, Mapping[str, float]],
    started_ms: int | None,
) -> Version:
    from heartml.release import run_children

    facts = capture.gather(name)
    with tracking.run(client, name, f"{name} {key[:8]}", started_ms) as run_id:
        tracking.log(client, run_id, run_record.record(name, key, facts, params, used))
        tracking.log_data(client, run_id, name.rpartition("-")[0], capture.data_hash(), {"pointer": "data.dvc"})
        files = _files(name, facts)
        tracking.log_files(client, run_id, files)
        source = sealing.log_model(client, run_id, package_model(name), name, key, sealing.file_hashes(files))
        child_runs.log(client, run_id, run_children.of(name))
    return versions.register(client, name, run_id=run_id, source=source, key=key)


def _files(name: str, facts: Mapping[str, Any]) -> dict[str, Path | str | bytes]:
    """What the run keeps (path in it -> file, text or bytes): enough to explain the model without this folder."""
    from heartml.inference.monitoring import reference
    from heartml.release import gate_inputs, run_pictures
    from heartml.reporting import model_card

    whole = {path: Path(path) for path in ("dvc.yaml", "dvc.lock", "params.yaml", "data.dvc", "requirements.lock")}
    made = {
        "folds.parquet": paths.folds(name), "evaluation": paths.evaluation(name), "validation": paths.VALIDATION,
        "out_of_fold.parquet": paths.out_of_fold(name), "robustness.json": paths.robustness(name),
        reference.NAME: reference.write(name),
    }
    texts: dict[str, str | bytes] = {
        "lineage.json": canonical_json(facts), "dvc.lock.json": capture.lock_as_json(),
        model_card.FILE: canonical_json(model_card.gather(name)),
        gate_inputs.UNITS_FILE: gate_inputs.held_out_units_as_csv(name),
    }
    if facts["code"]["dirty"]:
        texts["code.diff"] = capture.code_diff()
    kept = {to: path for to, path in (whole | made).items() if path.exists()}
    return {**kept, **run_pictures.of(name), **texts}


def package_model(name: str) -> PackedModel:
    """The model as MLflow stores it. It can be loaded without this repository."""
    import heartml
    from heartml.inference import serving

    package = Path(heartml.__file__).parent
    needed = (*_SERVING, *_libraries(read_json(paths.model(name) / "model.json").get("encoders", {})))
    requirements = tuple(f"{package}=={importlib.metadata.version(package)}" for package in needed)
    example = serving.example()
    return PackedModel(package / "inference" / "serving.py", paths.model(name), paths.PARAMS, package, requirements,
                       example, serving.predict_with(paths.model(name), example))


def _libraries(specs: Mapping[str, Any]) -> list[str]:
    """What the model's pre-trained encoders import beside `_SERVING`."""
    from heartml.models import encoders, held_weights

    kinds = {one["kind"] for one in held_weights.facts(specs)}
    return sorted({library for kind in kinds for library in encoders.libraries(kind)} - set(_SERVING))


def _judge(client: "Client", version: Version, params: "Params") -> None:
    from heartml.release import gate_inputs, looks

    champion = versions.champion(client, version.name)
    retirement = versions.retirement(client, version.name)
    look = looks.next_look(versions.list_versions(client, version.name), version.number, params.gate.confidence,
                           first=champion is None)
    verdict = gate_inputs.judge(client, version.name, champion, params, look, retirement).as_json()
    number = champion.number if champion else None
    text = canonical_json({**verdict, "champion": number, **sealing.version_identity(version)})
    tracking.log_files(client, version.run_id, sealing.signed_verdict_files(text))
    versions.record_verdict(client, version, verdict, number)


def _outcome(client: "Client", version: Version, state: str) -> ReleaseOutcome:
    with temporary_folder() as folder:
        verdict = read_json(tracking.fetch(client, version.run_id, "gate.json", folder))
    page = paths.REPORTS / f"{version.name}.html"
    if not _is_of(page, version):
        _write_page(client, version, page, verdict)
    return ReleaseOutcome(
        version.name, state, verdict["reason"], version.number, version.run_id, str(page),
        read_json(paths.evaluation(version.name) / "metrics.json"), verdict,
    )


def _is_of(page: Path, version: Version) -> bool:
    """Whether the report on this disk is the one that was written for this version."""
    return page.exists() and sha256_file(page) == version.tags.get("heartml.report")


def _write_page(client: "Client", version: Version, page: Path, verdict: Mapping[str, Any]) -> None:
    from heartml.lineage import chain
    from heartml.lineage.page import section
    from heartml.reporting import model_card, task_report

    registered = {"version": version.number, "run_id": version.run_id}
    card = model_card.text(client, version)
    lines = section(chain.read(client, version))
    text = task_report.render(version.name, {**verdict, **registered}, lines, model_card.as_html(card))
    with replacing(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    tracking.log_files(client, version.run_id, {"report.html": page, model_card.CARD: card})
    summary = model_card.excerpt(card)
    client.set_tag(version.run_id, "mlflow.note.content", summary)
    versions.describe(client, version, verdict["reason"], summary)
    client.set_model_version_tag(version.name, version.number, "heartml.report", sha256_file(page))   # all is stored


def close_stale_runs() -> list[str]:
    """Close the MLflow runs that killed processes left RUNNING; returns their ids."""
    return tracking.close_stale_runs(tracking.connect())
