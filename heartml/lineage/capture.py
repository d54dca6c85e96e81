"""Capture what a model was made from: code, data, every stage's inputs and outputs, environment, each with its hash.

In: the working tree as it is, with all stages fresh. Out: plain values for JSON, and a list of what is missing.
Nothing here uses a service.
"""

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import canonical_json, read_json
from heartml.core.system.hashing import sha256, sha256_file, sha256_folder
from heartml.lineage import code_difference
from heartml.models import held_weights
from heartml.pipeline import git

DVC_LOCK, DATA_DVC, REQUIREMENTS = Path("dvc.lock"), Path("data.dvc"), Path("requirements.lock")
_MODULES = ("torch", "torchaudio", "scikit-learn", "lightgbm", "numpy", "scipy", "pandas", "soundfile", "timm",
            "safetensors", "dvc", "mlflow", "prefect", "optuna")


class LineageError(HeartMLError):
    """A file that the lineage is made from cannot be read. The message names the file."""


def content_key(task: str) -> str:
    """One hash over the task's name, data, model, evaluation and folds. The same content gives the same key.

    Raises:
        LineageError: one of them is not there.
    """
    return sha256(canonical_json({"task": task, "data": data_hash(), **output_hashes(task)}).encode())


def output_hashes(task: str) -> dict[str, str]:
    """SHA-256 of the model, its evaluation and its folds.

    Raises:
        LineageError: one of them is not there.
    """
    places = {"model": paths.model(task), "evaluation": paths.evaluation(task), "folds": paths.folds(task)}
    for place in places.values():
        if not place.exists():
            raise LineageError(f"{place}: not here. Run `dvc repro`, or `dvc pull` where a remote has it.")
    return {name: sha256_folder(p) if p.is_dir() else sha256_file(p) for name, p in places.items()}


def data_hash() -> str:
    """The content hash of the data set, from `data.dvc`.

    Raises:
        LineageError: the file is missing, or cut short.
    """
    return str(_data()["md5"])


def _data() -> dict[str, Any]:
    try:
        found = dict(yaml.safe_load(DATA_DVC.read_text(encoding="utf-8"))["outs"][0])
    except (FileNotFoundError, KeyError, TypeError, IndexError, yaml.YAMLError):
        found = {}
    if not found.get("md5"):
        raise LineageError(f"{DATA_DVC}: missing or unreadable. `heartml ingest` writes it.")
    return found


def gather(task: str) -> dict[str, Any]:
    """The lineage of the model of one task, as plain values. Its key `missing` lists what could not be found.

    Raises:
        LineageError: `data.dvc`, the model, its evaluation or its folds are not there.
    """
    lock = _lock()
    stages = stages_behind(lock, paths.ARTIFACTS / task)
    found = {
        "task": task,
        "code": code_state(_code_inputs(stages)),
        "data": {"hash": data_hash(), "files": _data().get("nfiles"), "bytes": _data().get("size")},
        "dvc_lock_sha256": sha256(canonical_json(lock).encode()) if lock else None,
        "stages": stages,
        "outputs_sha256": output_hashes(task),
        "params_sha256": sha256_file(paths.PARAMS),
        "environment": environment(),
    }
    weights = held_weights.facts(read_json(paths.model(task) / "model.json").get("encoders", {}))
    return {**found, **({"weights": weights} if weights else {}), "missing": missing_links(found)}


def missing_links(found: Mapping[str, Any]) -> list[str]:
    """What an auditor would not find, one sentence each; empty if the lineage is complete.

    Args:
        found: lineage as `gather` returns it.
    """
    code = found["code"]
    why = f" ({code['trouble']})" if code.get("trouble") else ""
    unread = code.get("inputs_left_out", [])
    links = {
        f"no git commit: the code that made this cannot be named{why}": code["commit"],
        "code.diff lacks what a stage reads, commit it or remove it: " + "; ".join(unread[:3]): not unread,
        "no dvc.lock: the stages' inputs and outputs are not recorded": found["dvc_lock_sha256"],
        "dvc.lock names no stage that makes this model": found["stages"],
        f"no {REQUIREMENTS}: the packages are not pinned": found["environment"]["requirements_lock_sha256"],
    }
    return [words for words, link in links.items() if not link]


def _lock() -> dict[str, Any]:
    if not DVC_LOCK.exists():
        return {}
    return yaml.safe_load(DVC_LOCK.read_text(encoding="utf-8")) or {}


def lock_as_json() -> str:
    """`dvc.lock` as canonical JSON. In the file itself the order of stages depends on which of them ended first."""
    return canonical_json(_lock())


def stages_behind(lock: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The entries of `dvc.lock` that write into `folder`, and of all stages whose outputs these need."""
    stages = lock.get("stages", {})
    wanted, found = [folder], {}
    while wanted:
        place = wanted.pop()
        for address, entry in stages.items():
            if address not in found and any(_overlap(Path(out["path"]), place) for out in entry.get("outs", [])):
                found[address] = entry
                wanted += [Path(dep["path"]) for dep in entry.get("deps", [])]
    return {address: stages[address] for address in stages if address in found}


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _code_inputs(stages: Mapping[str, Any]) -> list[Path]:
    """The code that these stages and the registered model read: files and folders, without data and artifacts."""
    read = {Path(dep["path"]) for entry in stages.values() for dep in entry.get("deps", [])}
    code = {path for path in read if path.parts[0] not in (str(paths.DATA), str(paths.ARTIFACTS))}
    return sorted({*code, Path("heartml"), paths.DVC_YAML, paths.PARAMS, REQUIREMENTS})


def code_state(inputs: Iterable[Path] = ()) -> dict[str, Any]:
    """The commit, whether the working tree differs from it, and the hash of the difference. `None` outside git.

    The difference includes new files. So commit and difference together are the code. Data and large files are left out
    of it (heartml/lineage/code_difference.py). Only where there is something to say, there are three more keys:
    `left_out` names them, `inputs_left_out` those that are or lie in `inputs`, and `trouble` says why git cannot read
    this repository.
    """
    try:
        commit = git.output("rev-parse", "--verify", "--quiet", "HEAD").decode().strip()
        found = code_difference.read(commit) if commit else code_difference.CodeDifference(b"", {})
    except git.GitRefused as refused:
        return {"commit": None, "dirty": False, "diff_sha256": None, "trouble": str(refused)}
    needed = {path: why for path, why in found.left_out.items() if any(_overlap(Path(path), one) for one in inputs)}
    extra = {"left_out": code_difference.in_words(found.left_out), "inputs_left_out": code_difference.in_words(needed)}
    digest = sha256(found.diff) if found.diff else None
    return {"commit": commit or None, "dirty": bool(found.diff), "diff_sha256": digest,
            **{key: words for key, words in extra.items() if words}}


def code_diff() -> bytes:
    """The difference between commit and working tree for `git apply`, without `dvc.lock` and without data.

    Raises:
        GitRefused: git cannot read the repository, or a changed file.
    """
    commit = git.output("rev-parse", "--verify", "--quiet", "HEAD").decode().strip()
    return code_difference.read(commit).diff if commit else b""


def uncommitted() -> list[str]:
    """Files that say what a retraining was made from and are not committed; empty outside git."""
    files = (DVC_LOCK, DATA_DVC, paths.DVC_YAML, paths.PARAMS, REQUIREMENTS, paths.SPLITS)
    try:
        return code_difference.uncommitted([str(file) for file in files])
    except git.GitRefused:
        return []


def environment() -> dict[str, Any]:
    """Python, packages that influence the numbers, platform, hardware, and the hash of requirements.lock."""
    versions = {name: importlib.metadata.version(name) for name in _MODULES}
    return {
        "python": platform.python_version(), "platform": platform.platform(), "machine": platform.machine(),
        "cores": os.cpu_count(), "gpu": gpu(), "packages": versions,
        "requirements_lock_sha256": sha256_file(REQUIREMENTS) if REQUIREMENTS.exists() else None,
    }


def gpu() -> str | None:
    """The first GPU's name by the NVIDIA driver, without importing torch; `None` if there is no GPU."""
    names = [line.split(":", 1)[1].strip() for info in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
             for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("Model:")]
    return names[0] if names else None


def validation() -> tuple[bool, dict[str, Any]]:
    """Whether the data passed validation, and the stored result (`validation.json`)."""
    path = paths.VALIDATION / "validation.json"
    if not path.exists():
        return False, {}
    result = dict(read_json(path))
    return bool(result.get("success")), result
