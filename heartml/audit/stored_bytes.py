"""Checks of stored bytes: every file of the data version and of each stage's outputs is hashed again.

In: the evidence about one version. Out, for each check: what was found, in words. A check raises `LinkBroken` or
`LinkMissing`; the first line of its docstring says what is expected.

`dvc status` does not see a change that keeps a file's time and size, and DVC restores a damaged object of its cache
without a message. Here each object is read and hashed, from the first storage that has it (the cache, then remotes).
"""

import contextlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from heartml.audit.evidence import Evidence
from heartml.audit.git_tree import folder_md5, place_md5
from heartml.audit.links import LinkBroken, LinkMissing, listed, require_same, short
from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import read_json
from heartml.core.system.hashing import sha256_file, sha256_folder
from heartml.core.system.progress import track
from heartml.lineage import capture
from heartml.lineage.dvc_objects import ObjectNotFound, Objects, has_hash
from heartml.models import held_weights
from heartml.registry import model_files

_RUN_NAMES = {"folds.parquet": paths.folds, "out_of_fold.parquet": paths.out_of_fold,
              "robustness.json": paths.robustness}
_NOWHERE = "is not stored anywhere"


def data_version(evidence: Evidence) -> str:
    """Run, dvc.lock and lineage.json name the same data version."""
    deps = {str(dep["md5"]) for entry in evidence.stages.values() for dep in entry.get("deps", [])
            if dep["path"] == paths.DATA.as_posix()}
    if len(deps) > 1:
        raise LinkBroken(f"dvc.lock: stages read several versions of the data: {', '.join(sorted(deps))}")
    inputs = [json.loads(entry["source"]).get("hash") for entry in evidence.run.data]
    return require_same({
        "data.dvc of the run": evidence.data_md5, "its tag": evidence.run.tags.get("heartml.data"),
        "its input": inputs[0] if inputs else None, "lineage.json": evidence.facts.get("data", {}).get("hash"),
        **({"dvc.lock": deps.pop()} if deps else {}),
    }, "the same")


def data_objects(evidence: Evidence) -> str:
    """Every file of the data version is stored somewhere, with the bytes that it had."""
    return _intact(evidence.objects, {paths.DATA.as_posix(): evidence.data_md5}, "audit: data")


def data_here(evidence: Evidence) -> str:
    """The files in data/ are as they were, if this folder has that data version."""
    expected = evidence.data_md5
    try:
        here = capture.data_hash()
    except capture.LineageError:
        here = "none"
    if here != expected:
        return f"data/ here is another version ({short(here)}): nothing to compare"
    files = sorted(p for p in paths.DATA.rglob("*") if p.is_file() and p.name != ".gitignore")
    names = [path.relative_to(paths.DATA).as_posix() for path in files]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = dict(zip(names, pool.map(place_md5, files), strict=True))
    if folder_md5([{"md5": md5, "relpath": name} for name, md5 in hashes.items()]) == expected:
        return f"{len(files)} files in data/ as they were"
    try:
        wanted = evidence.objects.listing(expected)
    except ObjectNotFound as gone:
        raise LinkMissing(f"listing of the data version: {gone}") from None
    wrong = [f"{name}: {'changed' if name in hashes and name in wanted else 'added' if name in hashes else 'gone'}"
             for name in sorted({*hashes, *wanted}) if hashes.get(name) != wanted.get(name)]
    raise LinkBroken(f"data/ here: {listed(wrong)}. `{paths.RESTORE_DATA}` restores it")


def stage_outputs(evidence: Evidence) -> str:
    """Every output of the stages is stored somewhere, with the bytes that it had."""
    return _intact(evidence.objects, evidence.outputs, "audit: outputs")


def _intact(objects: Objects, wanted: Mapping[str, str], what: str) -> str:
    """Hash again what is stored under `wanted` (path -> MD5), folders with all their files."""
    files: dict[str, str] = {}           # MD5 -> a path that has it
    faults = [_listing(objects, path, md5, files) if md5.endswith(".dir") else files.setdefault(md5, path) and ""
              for path, md5 in wanted.items()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(partial(_fault, objects), files.values(), files)
        faults += list(track(done, what, len(files)))
    count = len(files) + sum(md5.endswith(".dir") for md5 in wanted.values())
    wrong = [fault for fault in faults if fault]
    gone = [fault for fault in wrong if fault.endswith(_NOWHERE)]
    if len(wrong) > len(gone):
        raise LinkBroken(f"{len(wrong) - len(gone)} of {count} objects: "
                    + listed([fault for fault in wrong if fault not in gone]))
    if gone:
        raise LinkMissing(f"{len(gone)} of {count} objects: {listed(gone)}. `dvc fetch` brings them from a remote "
                          "that has them, `heartml audit --reproduce` makes them again")
    return f"{count} objects hashed again"


def _listing(objects: Objects, path: str, md5: str, files: dict[str, str]) -> str:
    """Add the files of a folder to `files`; returns what is wrong with its listing, or an empty text."""
    fault = _fault(objects, path, md5)
    if not fault:
        files.update({of: f"{path}/{name}" for name, of in objects.listing(md5).items()})
    return fault


def _fault(objects: Objects, path: str, md5: str) -> str:
    """What is wrong with one object; an empty text if nothing is."""
    for place in objects.places:
        try:
            found = place.read(md5)
        except ObjectNotFound:
            continue
        return "" if has_hash(found, md5) else f"{path}: {place.name} has other bytes under {short(md5)}"
    return f"{path}: {short(md5)} {_NOWHERE}"


def lock_hash(evidence: Evidence) -> str:
    """dvc.lock, stored as YAML and as JSON, has the hash that the run's tag names."""
    from heartml.core.system.files import canonical_json
    from heartml.core.system.hashing import sha256

    text = canonical_json(evidence.lock)
    return require_same({
        "dvc.lock of the run": sha256(text.encode()), "dvc.lock.json": sha256_file(evidence.file("dvc.lock.json")),
        "its tag": evidence.run.tags.get("heartml.dvc_lock"),
        "lineage.json": evidence.facts.get("dvc_lock_sha256"),
    }, "the same")


def noted_stages(evidence: Evidence) -> str:
    """lineage.json has dvc.lock's entries of the stages behind the model, and nothing is missing in it."""
    if evidence.facts.get("missing"):
        raise LinkMissing(f"lineage.json: {listed(list(evidence.facts['missing']))}")
    noted, locked = evidence.facts.get("stages", {}), evidence.stages
    wrong = [address for address in sorted({*noted, *locked}) if noted.get(address) != locked.get(address)]
    if wrong:
        raise LinkBroken(f"lineage.json and dvc.lock differ on {listed(wrong)}")
    return f"{len(locked)} stages, the same in lineage.json and dvc.lock"


def registered_model(evidence: Evidence) -> str:
    """The registered ensemble is, byte for byte, the one that the stage `ensemble` made."""
    ensemble, made = model_files.ensemble_folder(evidence.stored_model), paths.model(evidence.name).as_posix()
    require_same({"dvc.lock": evidence.outputs.get(made), "the registered files": place_md5(ensemble)})
    return require_same({
        "the registered files": sha256_folder(ensemble), "the run's tag": evidence.run.tags.get("heartml.sha256.model"),
        "lineage.json": evidence.facts.get("outputs_sha256", {}).get("model"),
    }, "the same") + " (and its MD5 in dvc.lock)"


def has_weights(evidence: Evidence) -> bool:
    """Whether the model or its lineage names weights of a pre-trained encoder; false also where neither can be read."""
    unreadable = (HeartMLError, OSError, ValueError, KeyError, TypeError, AttributeError)     # other links say so
    with contextlib.suppress(*unreadable):
        if _weights_of_model(evidence):
            return True
    with contextlib.suppress(*unreadable):
        return bool(evidence.facts.get("weights"))
    return False


def weights(evidence: Evidence) -> str:
    """The weights of its pre-trained encoders are those that lineage.json names, and those that it holds are intact."""
    found, noted = _weights_of_model(evidence), evidence.facts.get("weights", [])
    if found != noted:
        raise LinkBroken("model.json and lineage.json name other weights: " + "; ".join(
            f"{where}: {listed([_in_words(one) for one in own]) or 'none'}"
            for where, own in (("model.json", found), ("lineage.json", noted))))
    ensemble = model_files.ensemble_folder(evidence.stored_model)
    held_weights.check(ensemble, read_json(ensemble / "model.json")["encoders"])
    forbidden = [one["encoder"] for one in found if one["held"] and not one["redistribute"]]
    if forbidden:
        raise LinkBroken(f"the model holds weights that must not be passed on: {listed(forbidden)}")
    return listed([_in_words(one) for one in found])


def _weights_of_model(evidence: Evidence) -> list[dict[str, Any]]:
    ensemble = model_files.ensemble_folder(evidence.stored_model)
    return held_weights.facts(read_json(ensemble / "model.json")["encoders"])


def _in_words(one: Mapping[str, Any]) -> str:
    return (f"{one.get('encoder')}: {one.get('weights')}, SHA-256 {short(one.get('sha256'))}, licence "
            f"{one.get('licence')}, {'held' if one.get('held') else 'named'}")


def stored_results(evidence: Evidence) -> str:
    """Evaluation, folds, validation and out-of-fold predictions of the run have the bytes that dvc.lock names."""
    name = evidence.name
    places = {run_name: of(name) for run_name, of in _RUN_NAMES.items()}
    places |= {"validation": paths.VALIDATION, "evaluation": paths.evaluation(name)}
    wrong, count = [], 0
    for out, md5 in evidence.outputs.items():
        for run_name, place in places.items():
            if Path(out) == place or Path(out).is_relative_to(place):
                stored = evidence.file((Path(run_name) / Path(out).relative_to(place)).as_posix())
                count += 1
                wrong += [] if place_md5(stored) == md5 else [f"{out}: not the bytes of dvc.lock"]
    if wrong:
        raise LinkBroken(listed(wrong))
    if not count:
        raise LinkMissing("dvc.lock names none of the results that the run keeps")
    hashed = {"folds": sha256_file(evidence.file("folds.parquet")),
              "evaluation": sha256_folder(evidence.file("evaluation"))}
    for what, digest in hashed.items():
        require_same({f"the run's {what}": digest, "its tag": evidence.run.tags.get(f"heartml.sha256.{what}")})
    return f"{count} outputs, the bytes that dvc.lock names"
