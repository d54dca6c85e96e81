"""The signed statement: what a signature covers beside the model's files.

In: a run with its params, metrics and tags as the store returns them, and the SHA-256 of each of its files. Out: the
statement that is signed together with the model (see heartml/registry/signing). The gate's verdict comes later and has
a signature of its own.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import canonical_json, read_json, temporary_folder
from heartml.core.system.hashing import sha256, sha256_file
from heartml.registry import model_files, signing, tracking
from heartml.registry.tracking import Client, PackedModel, Run
from heartml.registry.versions import Version

FORMAT = 1
GATE, GATE_SIGNATURE = "gate.json", "gate.signature.json"
LATER = (GATE, GATE_SIGNATURE, "report.html", "model_card.md")     # files that are stored after the signature is made
_SIGNED_TAGS, _GIT = "heartml.", "mlflow.source.git.commit"
_LATER_TAGS = ("heartml.process", "heartml.ended")


def log_model(client: Client, run_id: str, packed: PackedModel, name: str, key: str, files: Mapping[str, str]) -> str:
    """Sign a model, then store it in a run that is otherwise complete.

    Args:
        files: name in the run -> SHA-256.

    Returns:
        The address of the stored model.
    """
    seal = None
    if signing.required():
        seal = partial(_sign, statement=statement(_run(client, run_id), name, key, files))
    return tracking.log_model(client, run_id, packed, seal)


def _sign(folder: Path, statement: Mapping[str, Any]) -> None:
    signing.sign(folder, statement)


def statement(run: Run, name: str, key: str, files: Mapping[str, str]) -> dict[str, Any]:
    """The values that are signed together with the model's files."""
    return {"format": FORMAT, "model": name, "run_id": run.run_id, "key": key, "params": dict(run.params),
            "metrics": dict(run.metrics), "tags": signed_tags(run.tags),
            "files": {path: digest for path, digest in files.items() if path not in LATER}}


def signed_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a run that do not change later."""
    return {tag: value for tag, value in tags.items()
            if (tag.startswith(_SIGNED_TAGS) or tag == _GIT) and tag not in _LATER_TAGS}


def file_hashes(items: Mapping[str, Path | str | bytes]) -> dict[str, str]:
    """Path in the run -> SHA-256, for the files, folders, texts and bytes that `tracking.log_files` will store."""
    found: dict[str, str] = {}
    for name, item in items.items():
        if isinstance(item, str | bytes):
            found[name] = sha256(item.encode() if isinstance(item, str) else item)
        elif item.is_dir():
            found |= {f"{name}/{file}": digest for file, digest in folder_hashes(item).items()}
        else:
            found[name] = sha256_file(item)
    return found


def folder_hashes(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256, for every file in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def signed_verdict_files(text: str) -> dict[str, str]:
    """`gate.json` and its signature, as files for the run."""
    return {GATE: text, **({GATE_SIGNATURE: signing.sign_file(GATE, text)} if signing.required() else {})}


def sign_again(client: Client, version: Version) -> str:
    """Sign a version as it is stored now: its files, what its run keeps, and its verdict.

    This is for versions from before there were signatures, or whose key is lost. Whoever signs is responsible for what
    is stored.

    Returns:
        The fingerprint of the key.

    Raises:
        HeartMLError: the run is gone from the store.
    """
    with temporary_folder() as place:
        run_files = tracking.fetch(client, version.run_id, "", place / "run")
        folder = model_files.download_unverified(client, version, place)
        for name in (signing.STATEMENT, signing.SIGNATURE):
            (folder / name).unlink(missing_ok=True)
        signed = statement(_run(client, version.run_id), version.name, version.tags.get("heartml.key", ""),
                           folder_hashes(run_files))
        fingerprint = signing.sign(folder, signed)
        tracking.add_to_model(client, version.source, [folder / signing.STATEMENT, folder / signing.SIGNATURE])
        if (run_files / GATE).is_file():
            text = canonical_json({**read_json(run_files / GATE), **version_identity(version)})
            tracking.log_files(client, version.run_id, {GATE: text, GATE_SIGNATURE: signing.sign_file(GATE, text)})
    return fingerprint


def version_identity(version: Version) -> dict[str, str]:
    """The values that tie a signed verdict to one version, so that it is valid for no other."""
    return {"model": version.name, "version": version.number, "run_id": version.run_id,
            "key": version.tags.get("heartml.key", "")}


def _run(client: Client, run_id: str) -> Run:
    run = tracking.read_run(client, run_id)
    if run is None:
        raise HeartMLError(f"run {run_id}: gone from the store, so its values cannot be signed")
    return run
