"""What a signature vouches for beside the model's files: name, run, content key, and everything that the run keeps.

A run's params, metrics and tags as the store gives them back, and the SHA-256 of each of its files, go into the signed
statement (see heartml/registry/signing). What comes later, the gate's verdict, is signed by itself.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import canonical_json, read_json, scratch
from heartml.core.system.hashing import sha256, sha256_file
from heartml.registry import model_files, signing, tracking
from heartml.registry.tracking import Client, Packed, Run
from heartml.registry.versions import Version

FORMAT = 1
GATE, GATE_SIGNATURE = "gate.json", "gate.signature.json"
LATER = (GATE, GATE_SIGNATURE, "report.html", "model_card.md")     # files that come after the signature
_SIGNED_TAGS, _GIT = "heartml.", "mlflow.source.git.commit"
_LATER_TAGS = ("heartml.process", "heartml.ended")


def log_model(client: Client, run_id: str, packed: Packed, name: str, key: str, files: Mapping[str, str]) -> str:
    """Store the model of a run that is otherwise complete, signed before a byte of it leaves; returns its address.

    Args:
        files: name in the run -> SHA-256.
    """
    seal = None
    if signing.required():
        seal = partial(_sign, statement=statement(_run(client, run_id), name, key, files))
    return tracking.log_model(client, run_id, packed, seal)


def _sign(folder: Path, statement: Mapping[str, Any]) -> None:
    signing.sign(folder, statement)


def statement(run: Run, name: str, key: str, files: Mapping[str, str]) -> dict[str, Any]:
    """What is signed beside the files of the model."""
    return {"format": FORMAT, "model": name, "run_id": run.run_id, "key": key, "params": dict(run.params),
            "metrics": dict(run.metrics), "tags": signed_tags(run.tags),
            "files": {path: digest for path, digest in files.items() if path not in LATER}}


def signed_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Those of a run's tags that nobody changes later."""
    return {tag: value for tag, value in tags.items()
            if (tag.startswith(_SIGNED_TAGS) or tag == _GIT) and tag not in _LATER_TAGS}


def hashes(items: Mapping[str, Path | str]) -> dict[str, str]:
    """Path in the run -> SHA-256, of what `tracking.log_files` is about to store."""
    found: dict[str, str] = {}
    for name, item in items.items():
        if isinstance(item, str):
            found[name] = sha256(item.encode())
        elif item.is_dir():
            found |= {f"{name}/{file}": digest for file, digest in of_folder(item).items()}
        else:
            found[name] = sha256_file(item)
    return found


def of_folder(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def verdict(text: str) -> dict[str, str]:
    """`gate.json` with its signature beside it, for the run."""
    return {GATE: text, **({GATE_SIGNATURE: signing.sign_file(GATE, text)} if signing.required() else {})}


def sign_again(client: Client, version: Version) -> str:
    """Sign a version as it is stored now: its files, what its run keeps, its verdict; returns the key's fingerprint.

    For versions from before there were signatures, or from a key that is lost. Whoever signs vouches for what is there.
    """
    with scratch() as place:
        kept = tracking.fetch(client, version.run_id, "", place / "run")
        folder = model_files.copied(client, version, place)
        for name in (signing.STATEMENT, signing.SIGNATURE):
            (folder / name).unlink(missing_ok=True)
        said = statement(_run(client, version.run_id), version.name, version.tags.get("heartml.key", ""),
                         of_folder(kept))
        fingerprint = signing.sign(folder, said)
        tracking.add_to_model(client, version.source, [folder / signing.STATEMENT, folder / signing.SIGNATURE])
        if (kept / GATE).is_file():
            text = canonical_json({**read_json(kept / GATE), **of_version(version)})
            tracking.log_files(client, version.run_id, {GATE: text, GATE_SIGNATURE: signing.sign_file(GATE, text)})
    return fingerprint


def of_version(version: Version) -> dict[str, str]:
    """What binds a signed verdict to one version, so that it speaks for no other."""
    return {"model": version.name, "version": version.number, "run_id": version.run_id,
            "key": version.tags.get("heartml.key", "")}


def _run(client: Client, run_id: str) -> Run:
    run = tracking.read(client, run_id)
    if run is None:
        raise HeartMLError(f"run {run_id}: gone from the store; what it says cannot be signed")
    return run
