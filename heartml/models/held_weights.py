"""Weights within a fitted model: `weights/<SHA-256 of the publisher's file>.safetensors`, or a folder of that name.

In: the folder of a model and the specs of its encoders as JSON. A model holds the weights of an encoder by the setting
`hold`, and only where their licence lets them be passed on. Otherwise it names them by their hash, and cannot be loaded
where they are not. In the specs of a saved model `held` is the hash of what lies in the model.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heartml.core.system.files import replacing
from heartml.core.system.hashing import sha256_file, sha256_folder
from heartml.models.encoders import weight_files
from heartml.models.encoders.weight_files import WeightsError

FOLDER = "weights"
_HASH = re.compile("[0-9a-f]{64}")
Specs = Mapping[str, Mapping[str, Any]]      # encoder -> `EncoderSpec.to_json()`


def save(folder: Path, specs: Specs) -> dict[str, dict[str, Any]]:
    """Put the weights that the model holds into its folder.

    Returns:
        The specs, with `held` where the weights are in the folder.

    Raises:
        WeightsError: they are not here any more.
    """
    found = {}
    for name, spec in specs.items():
        plain = {key: value for key, value in spec.items() if key != "held"}
        section = section_of(spec)
        found[name] = {**plain, "held": _put(folder, section)} if section and _may_hold(section) else plain
    return found


def load(folder: Path, specs: Specs) -> None:
    """Make sure that the weights of each encoder can be read: those that the model holds, or those that it names.

    Raises:
        WeightsError: they are not here, or those in the folder are others.
    """
    for spec in specs.values():
        section = section_of(spec)
        if section is None:
            continue
        path, digest = Path(section["weights"]), str(section["sha256"])
        if "held" in spec:
            weight_files.offer(digest, _checked(folder, digest, spec["held"]))
        else:
            weight_files.place_of(path, digest)


def check(folder: Path, specs: Specs) -> None:
    """Check the weights that the model holds, without a look at those that it only names.

    Raises:
        WeightsError: they are gone, or others than it was saved with.
    """
    for spec in specs.values():
        if "held" in spec and (section := section_of(spec)):
            _checked(folder, section["sha256"], spec["held"])


def _checked(folder: Path, digest: str, held: str) -> Path:
    place = _place(folder, digest, is_folder=_place(folder, digest, is_folder=True).is_dir())
    if not place.exists() or _hash(place) != held:
        raise WeightsError(f"{place}: not the weights that the model was saved with. Fetch the model again")
    return place


def facts(specs: Specs) -> list[dict[str, Any]]:
    """What lineage, card and audit say of the weights behind a model, sorted by encoder; empty where there are none."""
    keys = ("weights", "sha256", "licence", "citation", "redistribute")
    return [{"encoder": name, "kind": spec.get("kind", name), **{key: section.get(key) for key in keys},
             "held": spec.get("held")}
            for name, spec in sorted(specs.items()) if (section := section_of(spec))]


def section_of(spec: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The encoder's own section, if it is pre-trained.

    Raises:
        WeightsError: it names no hash.
    """
    section: Mapping[str, Any] = spec["sections"].get(spec.get("kind", spec["name"]), {})
    if not {"weights", "sha256"} <= set(section):
        return None
    if not _HASH.fullmatch(str(section["sha256"])):      # it becomes part of a path
        raise WeightsError(f"encoder {spec['name']}: {str(section['sha256'])[:80]!r} is no SHA-256")
    return section


def _may_hold(section: Mapping[str, Any]) -> bool:
    """By the setting and the licence. What is said of the file now counts too: it may have been forbidden since."""
    now = weight_files.notes(Path(section["weights"])).get("redistribute", True)
    return bool(section.get("hold") and section.get("redistribute") and now)


def _put(folder: Path, section: Mapping[str, Any]) -> str:
    """Copy the weights; returns the hash of the copy."""
    digest = str(section["sha256"])
    source = weight_files.safe_copy(Path(section["weights"]), digest)
    target = _place(folder, digest, is_folder=source.is_dir())
    target.parent.mkdir(exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=shutil.copyfile, ignore=_not_needed)
    else:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
    return _hash(target)


def _not_needed(folder: str, names: list[str]) -> list[str]:
    """What a network of the library `transformers` is not read from, such as a page about it or a pickle of it."""
    return [name for name in names if Path(name).suffix not in (".json", ".safetensors")]


def _place(folder: Path, digest: str, *, is_folder: bool) -> Path:
    return folder / FOLDER / (digest if is_folder else f"{digest}.safetensors")


def _hash(place: Path) -> str:
    return sha256_folder(place) if place.is_dir() else sha256_file(place)
