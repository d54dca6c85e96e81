"""Is the code known? Commit, difference, what the stages ran, what a server would run, parameters and packages."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from heartml.audit.evidence import Evidence
from heartml.audit.links import Lost, Wrong, agree, listed, short
from heartml.core.system.hashing import sha256, sha256_file
from heartml.registry.signing import content

_MADE = ("data", "artifacts")       # what stages read that is no code
_ENTRIES = ("heartml/inference/serving.py", "heartml/serving.py")     # where it stands, and where it stood before


def commit(evidence: Evidence) -> str:
    """The commit that the run names is in this repository."""
    named = {"the run's tag": evidence.run.tags.get("mlflow.source.git.commit"), "lineage.json": evidence.commit}
    agreed = agree(named, "the same")
    evidence.tree.check()
    return agreed


def difference(evidence: Evidence) -> str:
    """What differed from the commit is stored, has the hash that was noted, and fits the commit."""
    told = evidence.facts.get("code", {})
    if not told.get("dirty"):
        if evidence.run.tags.get("heartml.code_dirty") != "false" or told.get("diff_sha256"):
            raise Wrong("lineage.json says that nothing differed from the commit, the run's tags say otherwise")
        return "nothing differed from the commit"
    said = agree({"code.diff": sha256_file(evidence.file("code.diff")), "lineage.json": told.get("diff_sha256")},
                 "the same")
    evidence.tree.check()
    return f"{said}; it fits the commit"


def of_stages(evidence: Evidence) -> str:
    """Each file of code that a stage read, by the lock, is the commit's with the difference."""
    wanted = {dep["path"]: str(dep.get("md5")) for entry in evidence.stages.values() for dep in entry.get("deps", [])
              if Path(dep["path"]).parts[0] not in _MADE}
    there = evidence.tree.md5s(wanted)
    wrong = [f"{path}: dvc.lock {short(md5)}, commit {short(there[path] or 'has none')}"
             for path, md5 in wanted.items() if there[path] != md5]
    if wrong:
        raise Wrong(listed(wrong))
    return f"{len(wanted)} files and folders of code as in commit {short(evidence.commit, 12)}"


def in_model(evidence: Evidence) -> str:
    """The Python beside the model, which MLflow's server runs, is the commit's; no bytecode hides other code."""
    stored = evidence.raw / "code"
    files = {p.relative_to(stored).as_posix(): p.read_bytes() for p in sorted(stored.rglob("*"))
             if p.is_file() and p.suffix != ".pyc"}
    own = evidence.tree.read(evidence.tree.below("heartml"))
    entry = next((name for name in _ENTRIES if name in own), _ENTRIES[0])
    files[f"{entry} (entry)"], own[f"{entry} (entry)"] = (evidence.raw / "serving.py").read_bytes(), own.get(entry, b"")
    wrong = [f"{name}: {'changed' if name in files and name in own else 'added' if name in files else 'left out'}"
             for name in sorted({*files, *own}) if files.get(name) != own.get(name)]
    wrong += content.foreign_bytecode(evidence.raw)
    if wrong:
        raise Wrong(f"code beside the model is not that of the commit: {listed(wrong)}")
    return f"{len(files)} files of code as in commit {short(evidence.commit, 12)}"


def parameters(evidence: Evidence) -> str:
    """params.yaml is that of the code, of the model and of the notes, and the stages ran with its numbers."""
    inside = evidence.raw / "artifacts" / "params.yaml"
    said = agree({
        "params.yaml of the run": sha256_file(evidence.file("params.yaml")),
        "lineage.json": evidence.facts.get("params_sha256"),
        "the registered model": sha256_file(inside) if inside.is_file() else None,
        "the commit": _hash_in_tree(evidence, "params.yaml"),
    }, "the same")
    wrong = _other_numbers(evidence.values("params.yaml"), evidence.lock, evidence.stages)
    if wrong:       # `off` and `1e-3` are read in two ways: DVC's own decides, and takes ten times as long
        values, lock = (_as_dvc_reads(evidence.file(name)) for name in ("params.yaml", "dvc.lock"))
        wrong = _other_numbers(values, lock, evidence.stages)
    if wrong:
        raise Wrong(f"dvc.lock has other numbers than params.yaml: {listed(wrong)}")
    return f"{said}; the stages' numbers in dvc.lock too"


def _other_numbers(values: Mapping[str, Any], lock: Mapping[str, Any], addresses: Iterable[str]) -> list[str]:
    """Stage and key of what the lock has otherwise than the parameters."""
    return [f"{address}: {key}" for address in addresses
            for key, value in lock["stages"][address].get("params", {}).get("params.yaml", {}).items()
            if _at(values, key) != value]


def _as_dvc_reads(path: Path) -> Any:
    """YAML 1.2, in which `off` is a word and `1e-3` a number."""
    from dvc.utils.serialize import load_yaml

    return load_yaml(path)


def _at(values: Mapping[str, Any], key: str) -> Any:
    """The value at `validate.min_class_groups`."""
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def packages(evidence: Evidence) -> str:
    """The packages are pinned, by the lock file of that commit."""
    return agree({
        "requirements.lock of the run": sha256_file(evidence.file("requirements.lock")),
        "lineage.json": evidence.facts.get("environment", {}).get("requirements_lock_sha256"),
        "the commit": _hash_in_tree(evidence, "requirements.lock"),
    }, "the same")


def pipeline(evidence: Evidence) -> str:
    """dvc.yaml is that of the commit, and the stages ran its commands."""
    said = agree({"dvc.yaml of the run": sha256_file(evidence.file("dvc.yaml")),
                  "the commit": _hash_in_tree(evidence, "dvc.yaml")}, "the same")
    told = yaml.safe_load(evidence.file("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    wrong = [f"{address}: {entry['cmd']}" for address, entry in evidence.stages.items()
             if not _is_of(address, str(entry["cmd"]), told)]
    if wrong:
        raise Wrong(f"dvc.lock has commands that dvc.yaml has not: {listed(wrong)}")
    return said


def _is_of(address: str, command: str, told: Mapping[str, Any]) -> bool:
    """Whether a command is that of its stage in dvc.yaml, with the items in it that the address names."""
    stage, _, items = address.partition("@")
    template = re.split(r"\$\{[^}]*\}", str(told.get(stage, {}).get("cmd", "")))
    found = re.fullmatch(r"([\w.+-]+)".join(map(re.escape, template)), command)
    return found is not None and "-".join(found.groups()) == items


def _hash_in_tree(evidence: Evidence, path: str) -> str | None:
    if path not in evidence.tree.blobs:
        raise Lost(f"{path}: not in commit {evidence.commit}")
    return sha256(evidence.tree.read([path])[path])
