"""Checks of the code: commit, difference, the stages' code, the model's code, parameters, packages and dvc.yaml.

In: the evidence about one version. Out, for each check: what was found, in words. A check raises `LinkBroken` or
`LinkMissing`; the first line of its docstring says what is expected.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from heartml.audit.evidence import Evidence
from heartml.audit.links import LinkBroken, LinkMissing, listed, require_same, short
from heartml.core.system.hashing import sha256, sha256_file
from heartml.registry.signing import content

_NO_CODE = ("data", "artifacts")    # what stages read beside code
_ENTRIES = ("heartml/inference/serving.py", "heartml/serving.py")     # the entry's place now, and in older versions


def commit(evidence: Evidence) -> str:
    """The commit that the run names is in this repository."""
    named = {"the run's tag": evidence.run.tags.get("mlflow.source.git.commit"), "lineage.json": evidence.commit}
    agreed = require_same(named, "the same")
    evidence.tree.check()
    return agreed


def difference(evidence: Evidence) -> str:
    """The difference to the commit is stored, has the hash that lineage.json names, and fits the commit."""
    noted = evidence.facts.get("code", {})
    if not noted.get("dirty"):
        if evidence.run.tags.get("heartml.code_dirty") != "false" or noted.get("diff_sha256"):
            raise LinkBroken("lineage.json says that nothing differed from the commit, the run's tags say otherwise")
        return f"nothing differed from the commit{_left_out(noted)}"
    same = require_same({"code.diff": sha256_file(evidence.file("code.diff")),
                         "lineage.json": noted.get("diff_sha256")}, "the same")
    evidence.tree.check()
    return f"{same}; it fits the commit{_left_out(noted)}"


def _left_out(noted: Mapping[str, Any]) -> str:
    """What the difference lacks because it is data or too large, for the end of a sentence."""
    words = [str(one) for one in noted.get("left_out", ())]
    return f"; left out of code.diff: {listed(words)}" if words else ""


def of_stages(evidence: Evidence) -> str:
    """Each code file that dvc.lock names for a stage has the bytes of the commit with the difference."""
    wanted = {dep["path"]: str(dep.get("md5")) for entry in evidence.stages.values() for dep in entry.get("deps", [])
              if Path(dep["path"]).parts[0] not in _NO_CODE}
    there = evidence.tree.md5s(wanted)
    wrong = [f"{path}: dvc.lock {short(md5)}, commit {short(there[path] or 'has none')}"
             for path, md5 in wanted.items() if there[path] != md5]
    if wrong:
        raise LinkBroken(listed(wrong))
    return f"{len(wanted)} files and folders of code as in commit {short(evidence.commit, 12)}"


def in_model(evidence: Evidence) -> str:
    """The Python beside the model, which MLflow's server runs, is the commit's, and no bytecode hides other code."""
    stored = evidence.stored_model / "code"
    files = {p.relative_to(stored).as_posix(): p.read_bytes() for p in sorted(stored.rglob("*"))
             if p.is_file() and p.suffix != ".pyc"}
    own = evidence.tree.read(evidence.tree.below("heartml"))
    entry = next((name for name in _ENTRIES if name in own), _ENTRIES[0])
    files[f"{entry} (entry)"] = (evidence.stored_model / "serving.py").read_bytes()
    own[f"{entry} (entry)"] = own.get(entry, b"")
    wrong = [f"{name}: {'changed' if name in files and name in own else 'added' if name in files else 'left out'}"
             for name in sorted({*files, *own}) if files.get(name) != own.get(name)]
    wrong += content.foreign_bytecode(evidence.stored_model)
    if wrong:
        raise LinkBroken(f"code beside the model is not that of the commit: {listed(wrong)}")
    return f"{len(files)} files of code as in commit {short(evidence.commit, 12)}"


def parameters(evidence: Evidence) -> str:
    """params.yaml is the same in run, commit, model and lineage.json, and the stages ran with its values."""
    inside = evidence.stored_model / "artifacts" / "params.yaml"
    same = require_same({
        "params.yaml of the run": sha256_file(evidence.file("params.yaml")),
        "lineage.json": evidence.facts.get("params_sha256"),
        "the registered model": sha256_file(inside) if inside.is_file() else None,
        "the commit": _hash_in_tree(evidence, "params.yaml"),
    }, "the same")
    wrong = _other_values(evidence.values("params.yaml"), evidence.lock, evidence.stages)
    if wrong:       # YAML 1.1 and 1.2 read `off` and `1e-3` differently. DVC's reader decides; it is ten times slower
        values, lock = (_as_dvc_reads(evidence.file(name)) for name in ("params.yaml", "dvc.lock"))
        wrong = _other_values(values, lock, evidence.stages)
    if wrong:
        raise LinkBroken(f"dvc.lock has other values than params.yaml: {listed(wrong)}")
    return f"{same}; the stages' values in dvc.lock too"


def _other_values(values: Mapping[str, Any], lock: Mapping[str, Any], addresses: Iterable[str]) -> list[str]:
    """Stage and key of each value in the lock that differs from the parameters."""
    return [f"{address}: {key}" for address in addresses
            for key, value in lock["stages"][address].get("params", {}).get("params.yaml", {}).items()
            if _at(values, key) != value]


def _as_dvc_reads(path: Path) -> Any:
    """Read YAML 1.2, in which `off` is a text and `1e-3` a number."""
    from dvc.utils.serialize import load_yaml

    return load_yaml(path)


def _at(values: Mapping[str, Any], key: str) -> Any:
    """The value of a nested key.

    >>> _at({"validate": {"min_class_groups": 10}}, "validate.min_class_groups")
    10
    """
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def packages(evidence: Evidence) -> str:
    """requirements.lock, which pins the packages, is the same in run, commit and lineage.json."""
    return require_same({
        "requirements.lock of the run": sha256_file(evidence.file("requirements.lock")),
        "lineage.json": evidence.facts.get("environment", {}).get("requirements_lock_sha256"),
        "the commit": _hash_in_tree(evidence, "requirements.lock"),
    }, "the same")


def pipeline(evidence: Evidence) -> str:
    """dvc.yaml is that of the commit, and the stages ran its commands."""
    same = require_same({"dvc.yaml of the run": sha256_file(evidence.file("dvc.yaml")),
                         "the commit": _hash_in_tree(evidence, "dvc.yaml")}, "the same")
    declared = yaml.safe_load(evidence.file("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    wrong = [f"{address}: {entry['cmd']}" for address, entry in evidence.stages.items()
             if not _is_declared(address, str(entry["cmd"]), declared)]
    if wrong:
        raise LinkBroken(f"dvc.lock has commands that dvc.yaml has not: {listed(wrong)}")
    return same


def _is_declared(address: str, command: str, declared: Mapping[str, Any]) -> bool:
    """Whether a command is that of its stage in dvc.yaml, filled in with the items that the address names.

    >>> stages = {"search": {"cmd": "python -m heartml search --task ${item}"}}
    >>> _is_declared("search@circor-murmur", "python -m heartml search --task circor-murmur", stages)
    True
    >>> _is_declared("search@circor-murmur", "python -m heartml search --task another", stages)
    False
    """
    stage, _, items = address.partition("@")
    template = re.split(r"\$\{[^}]*\}", str(declared.get(stage, {}).get("cmd", "")))
    found = re.fullmatch(r"([\w.+-]+)".join(map(re.escape, template)), command)
    return found is not None and "-".join(found.groups()) == items


def _hash_in_tree(evidence: Evidence, path: str) -> str | None:
    if path not in evidence.tree.blobs:
        raise LinkMissing(f"{path}: not in commit {evidence.commit}")
    return sha256(evidence.tree.read([path])[path])
