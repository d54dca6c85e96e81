"""After the stages: make sure that the model in `artifacts/` is registered, judged and settled. Idempotent.

This changes the world outside, so it is a flow's act and no DVC stage: an auditor who reproduces does not promote.
What is registered is named by its content (`lineage.content_key`); a state that a killed run left is finished here.
"""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import canonical_json, read_json, replacing, scratch
from heartml.core.system.hashing import sha256_file
from heartml.lineage import capture
from heartml.registry import champions, sealing, tracking, versions
from heartml.registry.tracking import Packed, Record
from heartml.registry.versions import ChampionChanged, Version

if TYPE_CHECKING:
    from heartml.core.config import Params
    from heartml.registry.tracking import Client

FAILED, KNOWN = "failed", "nothing new"
_TRIES = 3
_SERVING = ("mlflow", "click", "lightgbm", "model-signing", "numpy", "pandas", "pydantic", "pyopenssl", "pyyaml",
            "safetensors", "scikit-learn", "scipy", "soundfile", "timm", "torch", "torchaudio")   # what it imports


@dataclass(frozen=True)
class ReleaseOutcome:
    """What a retraining came to, for one task.

    Attributes:
        state: `promoted`, `refused`, `nothing new`, or `failed`.
        reason: the gate's, or the error.
        version, run_id, report: where to look; `None` where it failed before.
        evaluation: `metrics.json`; empty where it failed before.
        verdict: `gate.Verdict.as_json()`; empty where it failed before.
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
    """The outcome of a task whose stages did not all end well."""
    return ReleaseOutcome(task, FAILED, reason, None, None, None, {}, {})


def publish(name: str, params: "Params", seconds: Mapping[str, float]) -> ReleaseOutcome:
    """Register, judge, settle and report one task, as far as that is not done yet.

    Args:
        seconds: how long each stage took that ran, for the run's metrics.
    """
    client = tracking.connect()
    versions.follow(client, name)
    before = champions.last(champions.read(client, name))
    key = capture.content_key(name)
    version = versions.find(client, name, key)
    if version and version.settled:
        return _noting(before, _known(client, version))
    if version is None:
        version = _register(client, name, key, params, seconds)
    for _ in range(_TRIES):
        if version.verdict is None:
            _judge(client, version, params)
        try:
            settled = versions.settle(client, version)
        except ChampionChanged:
            version = versions.forget_verdict(client, version)
            continue
        versions.close_abandoned(client, name)
        return _noting(before, _outcome(client, settled, settled.verdict or ""))
    raise HeartMLError(f"{name}: the champion changed {_TRIES} times while version {version.number} was judged. "
                       "Run `heartml retrain` again.")


def _known(client: "Client", version: Version) -> ReleaseOutcome:
    serves = "is the champion" if versions.CHAMPION in version.aliases else f"was {version.verdict}"
    found = _outcome(client, version, KNOWN)
    return replace(found, reason=f"this model is version {version.number} and {serves}")


def _noting(before: champions.Entry | None, outcome: ReleaseOutcome) -> ReleaseOutcome:
    """The outcome, and whose word stood until now, where that was a person's: nobody's decision goes without notice."""
    if before is None or before.decision.kind not in (champions.PERSON, champions.ROLLBACK):
        return outcome
    led = "until now " if outcome.state == versions.PROMOTED else ""
    return replace(outcome, reason=f"{outcome.reason}; {led}{before.in_words()}")


def _register(
    client: "Client", name: str, key: str, params: "Params", seconds: Mapping[str, float]
) -> Version:
    facts = capture.gather(name)
    with tracking.run(client, name, f"{name} {key[:8]}") as run_id:
        tracking.log(client, run_id, record(name, key, facts, params, seconds))
        tracking.log_data(client, run_id, name.rpartition("-")[0], capture.data_hash(), {"pointer": "data.dvc"})
        kept = _files(name, facts)
        tracking.log_files(client, run_id, kept)
        source = sealing.log_model(client, run_id, pack(name), name, key, sealing.hashes(kept))
    return versions.register(client, name, run_id=run_id, source=source, key=key)


def record(
    name: str, key: str, facts: Mapping[str, Any], params: "Params", seconds: Mapping[str, float]
) -> Record:
    """What the run says in params, metrics and tags."""
    evaluation = read_json(paths.evaluation(name) / "metrics.json")
    tables = {part: evaluation[part] for part in ("held_out", "out_of_fold")}
    tables |= {f"floor/{floor}": numbers for floor, numbers in evaluation["floors"].items()}
    metrics = {
        f"{table}/{metric}{'' if end == 'value' else '_' + end}": value
        for table, numbers in tables.items() for metric, ends in numbers.items()
        for end, value in ends.items() if value is not None
    }
    metrics |= {f"seconds/{stage.replace('@', '/')}": value for stage, value in seconds.items()}
    code, passed = facts["code"], capture.validation()[0]
    tags = {
        "heartml.key": key, "heartml.task": name, "heartml.data": facts["data"]["hash"],
        "heartml.dvc_lock": facts["dvc_lock_sha256"] or "", "heartml.validation": "passed" if passed else "failed",
        "heartml.code_dirty": str(code["dirty"]).lower(), "mlflow.source.git.commit": code["commit"] or "",
        **{f"heartml.sha256.{what}": digest for what, digest in facts["outputs_sha256"].items()},
    }
    return Record(dict(_flat("", params.model_dump(mode="json", by_alias=True))), metrics, tags)


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in _flat(f"{prefix}{key}.", item)]
    return [(prefix[:-1], value if isinstance(value, str) else canonical_json(value).strip())]


def _files(name: str, facts: Mapping[str, Any]) -> dict[str, Path | str]:
    """What the run keeps: enough to explain the model when this folder is gone."""
    from heartml.inference.monitoring import reference
    from heartml.release import gate_inputs
    from heartml.reporting import model_card

    whole = {path: Path(path) for path in ("dvc.yaml", "dvc.lock", "params.yaml", "data.dvc", "requirements.lock")}
    made = {
        "folds.parquet": paths.folds(name), "evaluation": paths.evaluation(name), "validation": paths.VALIDATION,
        "out_of_fold.parquet": paths.out_of_fold(name), "robustness.json": paths.robustness(name),
        reference.NAME: reference.write(name),
    }
    texts = {"lineage.json": canonical_json(facts), "dvc.lock.json": capture.lock_as_json(),
             model_card.FILE: canonical_json(model_card.gather(name)),
             gate_inputs.KNOWN: gate_inputs.known_as_csv(name)}
    if facts["code"]["dirty"]:
        texts["code.diff"] = capture.code_diff()
    return {**{to: path for to, path in (whole | made).items() if path.exists()}, **texts}


def pack(name: str) -> Packed:
    """The model as MLflow stores it, able to load without this repository."""
    import heartml
    from heartml.inference import serving

    package = Path(heartml.__file__).parent
    requirements = tuple(f"{needed}=={importlib.metadata.version(needed)}" for needed in _SERVING)
    example = serving.example()
    return Packed(package / "inference" / "serving.py", paths.model(name), paths.PARAMS, package, requirements, example,
                  serving.answer(paths.model(name), example))


def _judge(client: "Client", version: Version, params: "Params") -> None:
    from heartml.release import gate_inputs

    champion = versions.champion(client, version.name)
    verdict = gate_inputs.judge(client, version.name, champion, params).as_json()
    number = champion.number if champion else None
    told = canonical_json({**verdict, "champion": number, **sealing.of_version(version)})
    tracking.log_files(client, version.run_id, sealing.verdict(told))
    versions.record(client, version, verdict, number)


def _outcome(client: "Client", version: Version, state: str) -> ReleaseOutcome:
    with scratch() as folder:
        verdict = read_json(tracking.fetch(client, version.run_id, "gate.json", folder))
    page = paths.REPORTS / f"{version.name}.html"
    if not _is_of(page, version):
        _write_page(client, version, page, verdict)
    return ReleaseOutcome(
        version.name, state, verdict["reason"], version.number, version.run_id, str(page),
        read_json(paths.evaluation(version.name) / "metrics.json"), verdict,
    )


def _is_of(page: Path, version: Version) -> bool:
    """Whether the page is the one that was written for this version."""
    return page.exists() and sha256_file(page) == version.tags.get("heartml.report")


def _write_page(client: "Client", version: Version, page: Path, verdict: Mapping[str, Any]) -> None:
    from heartml.lineage import chain
    from heartml.lineage.page import section
    from heartml.reporting import model_card, task_report

    registered = {"version": version.number, "run_id": version.run_id}
    told = model_card.text(client, version)
    lines = section(chain.read(client, version))
    text = task_report.render(version.name, {**verdict, **registered}, lines, model_card.as_html(told))
    with replacing(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    tracking.log_files(client, version.run_id, {"report.html": page, model_card.CARD: told})
    client.set_model_version_tag(version.name, version.number, "heartml.report", sha256_file(page))   # all is there


def sweep() -> list[str]:
    """Close the MLflow runs that killed processes left RUNNING; returns their ids."""
    return tracking.sweep(tracking.connect())
