"""Weights as data: a publisher's file in, `weights/NAME/` and `weights/NAME.dvc` out, with what was said of it.

DVC tracks the folder. Its file keeps kind, hash, licence, citation, and whether the weights may be passed on. Those
that must not be are never pushed to a remote (`push: false`), nor put into a registered model.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartml.core import paths
from heartml.core.config import Params
from heartml.core.system import machine_errors
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import replacing, replacing_folder
from heartml.models import encoders
from heartml.models.encoders import weight_files
from heartml.pipeline import dvc_log_errors


class WeightListError(HeartMLError):
    """Weights cannot be added or listed. The message says what to do."""


@dataclass(frozen=True)
class ListedWeights:
    """Weights that the project tracks.

    Attributes:
        file: what `weights` in params.yaml names.
        here: whether the file is in this folder.
        megabytes: of all that is tracked for it.
    """

    name: str
    kind: str
    file: str
    sha256: str
    licence: str
    citation: str
    redistribute: bool
    here: bool
    megabytes: float

    @property
    def declaration(self) -> str:
        """The line for `encoder_parameters` in params.yaml."""
        own = self.name if self.name.isidentifier() else self.kind + "_1"
        return f"  {own}: {{kind: {self.kind}, weights: {self.file}, sha256: \"{self.sha256}\"}}"


def add(path: Path, kind: str, licence: str, params: Params, *, name: str | None = None, citation: str | None = None,
        redistribute: bool | None = None, more: Mapping[str, Any] | None = None) -> ListedWeights:
    """Check that `path` holds weights of this kind, copy it to `weights/NAME/`, and let DVC track that.

    Args:
        path: the publisher's file, or a folder of kind `transformers`.
        name: `None`: of the file, or of its folder where that says the shape.
        redistribute: whether the weights may be passed on; `None`: what the publisher of this kind allows.
        more: other keys of the kind's section, for what the file does not say.

    Raises:
        WeightListError: the name is taken by other weights, or DVC cannot track the folder.
        WeightsError: the file cannot be used; nothing was copied.
    """
    digest = weight_files.hash_of(path)
    section = {"weights": str(path), "sha256": digest, "licence": licence, "citation": citation,
               "redistribute": redistribute, **(more or {})}
    own = encoders.spec_of_weights(kind, section, params).pretrained
    assert own is not None
    folder = paths.WEIGHTS / (name or _usual_name(path))
    target = folder if path.is_dir() else folder / path.name
    if target.exists() and weight_files.hash_of(target) != digest:
        raise WeightListError(f"{target}: other weights have this name; choose one with --name")
    _copy(path, target)
    meta = {"kind": kind, "file": target.name if target != folder else "", "sha256": digest, "licence": own.licence,
            "citation": own.citation, "redistribute": bool(own.redistribute), "shape": own.shape()}
    _track(folder, meta)
    return _listed(_pointer(folder))


def read() -> list[ListedWeights]:
    """The weights that the project tracks, by name.

    Raises:
        WeightsError: a DVC file cannot be read.
    """
    return [_listed(pointer) for pointer in sorted(paths.WEIGHTS.glob("*.dvc"))]


def _usual_name(path: Path) -> str:
    """`mn04_as` for `mn04_as.pt`; the folder of a checkpoint of M2D, because its name has the shape."""
    from heartml.models.encoders.m2d import shape_of

    return path.parent.name if shape_of(path.parent.name) else path.name if path.is_dir() else path.stem


def _copy(path: Path, target: Path) -> None:
    if target.exists():
        return
    if path.is_dir():
        with replacing_folder(target) as temporary:
            shutil.copytree(path, temporary, dirs_exist_ok=True, copy_function=shutil.copyfile)
        return
    with replacing(target) as temporary:
        shutil.copyfile(path, temporary)


def _pointer(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.dvc")


def _track(folder: Path, meta: Mapping[str, Any]) -> None:
    """Let DVC track the folder, then write what was said of it into DVC's file."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.utils.serialize import dump_yaml

    try:
        with Repo(".", _wait_for_lock=True) as repo:
            repo.scm_context.quiet = True
            with dvc_log_errors.raise_logged_errors():
                repo.add(str(folder))
    except DvcException as error:
        machine = machine_errors.explain(error) or machine_errors.explain_unwritable(paths.WEIGHTS)
        raise WeightListError(machine or f"DVC: {error}. Run heartml in the root of the repository.") from None
    content = weight_files.read_pointer(_pointer(folder))
    outs = [{key: value for key, value in out.items() if key != "push"} for out in content["outs"]]
    if not meta["redistribute"]:
        outs = [{**out, "push": False} for out in outs]
    with replacing(_pointer(folder)) as temporary:      # as DVC writes it, or `dvc exp run` would write it anew
        dump_yaml(temporary, {**content, "outs": outs, "meta": dict(meta)})


def _listed(pointer: Path) -> ListedWeights:
    content = weight_files.read_pointer(pointer)
    meta, out = content.get("meta") or {}, content["outs"][0]
    folder = pointer.parent / str(out["path"])
    file = folder / str(meta.get("file") or "")
    return ListedWeights(
        pointer.stem, str(meta.get("kind", "not stated")), file.as_posix(), str(meta.get("sha256", "")),
        str(meta.get("licence", "not stated")), str(meta.get("citation", "not stated")),
        bool(meta.get("redistribute", False)), file.exists(), int(out.get("size", 0)) / 1e6)
