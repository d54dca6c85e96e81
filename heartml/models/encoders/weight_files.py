"""Files of weights: a checkpoint and its SHA-256 in, named tensors out. No file can run code, and none is downloaded.

A publisher's file (PyTorch or safetensors) is read once, checked against its hash and, when a network could be made of
it, kept as safetensors in the cache under the hash of the publisher's file. A registered model may hold such a file
itself; `offer` tells where it is. PyTorch's files are read with `weights_only=True` and never otherwise.
"""

import argparse
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from heartml.core import paths
from heartml.core.system import untrusted
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import replacing
from heartml.core.system.hashing import sha256_file, sha256_folder

if TYPE_CHECKING:
    from torch import Tensor

_NESTED = ("model", "state_dict")      # where publishers put the tensors; otherwise the file is flat
_OFFERED: dict[str, list[Path]] = {}   # SHA-256 of a publisher's file -> the same weights within loaded models


class WeightsError(HeartMLError):
    """Weights are missing, are others than the named ones, or cannot be used. The message names the file."""


def hash_of(path: Path) -> str:
    """SHA-256 of a file of weights, or over all files of a folder (`hashing.sha256_folder`).

    Raises:
        WeightsError: there is nothing at `path`.
    """
    if not path.exists():
        raise WeightsError(f"{path}: no such file of weights. Weights are not downloaded: put the file there, or "
                           "`dvc pull` it where it is tracked")
    seen = [file.stat() for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return _hash_of(path.absolute(), tuple((one.st_mtime_ns, one.st_size) for one in seen))


@functools.lru_cache(maxsize=64)
def _hash_of(path: Path, changed: tuple[tuple[int, int], ...]) -> str:
    return sha256_folder(path) if path.is_dir() else sha256_file(path)


def check(path: Path, sha256: str) -> None:
    """Check that `path` holds the named weights.

    Raises:
        WeightsError: it is not there, or has another hash.
    """
    if (found := hash_of(path)) != sha256:
        raise WeightsError(f"{path}: its SHA-256 is {found}, not {sha256}. Fetch the file again, or write the hash of "
                           "the file that you mean")


def notes(path: Path) -> dict[str, Any]:
    """What was said when the weights were added: `meta` of the DVC file that tracks them or their folder, or empty.

    Keys: `kind`, `licence`, `citation`, `redistribute`, `sha256`, `file`, `shape`.

    Raises:
        WeightsError: a DVC file there cannot be read.
    """
    pointers = [(pointer, tracked.name) for tracked in (path, path.parent)
                for pointer in sorted(tracked.parent.glob("*.dvc"))]
    for pointer, name in pointers:
        content = read_pointer(pointer)
        if any(str(out["path"]) == name for out in content["outs"]):
            return dict(content.get("meta") or {})
    return {}


def read_pointer(pointer: Path) -> dict[str, Any]:
    """The content of a DVC file.

    Raises:
        WeightsError: it is none.
    """
    try:
        content = dict(untrusted.parse_yaml(untrusted.read_text(pointer), yaml.SafeLoader))
        if all(str(out["path"]) for out in content["outs"]) and isinstance(content.get("meta", {}), dict):
            return content
        raise ValueError("its keys are others")
    except (untrusted.DocumentError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{pointer}: no DVC file ({error}). Bring it back: `git checkout {pointer}`") from None


def converted(sha256: str) -> Path:
    """Where the cache keeps the weights of a publisher's file with this hash, as safetensors."""
    return paths.cache() / "weights" / f"{sha256}.safetensors"


def offer(sha256: str, file: Path) -> None:
    """Tell that `file`, within a loaded model, holds the weights of the publisher's file with this hash."""
    known = _OFFERED.setdefault(sha256, [])
    known[:] = [file.absolute(), *(one for one in known if one != file.absolute() and one.exists())]


def place_of(path: Path, sha256: str) -> Path:
    """Where the named weights can be read: in a loaded model, in the cache, or the publisher's file itself.

    Raises:
        WeightsError: nowhere.
    """
    for known in [*_OFFERED.get(sha256, []), converted(sha256)]:
        if known.exists():
            return known
    if not path.exists():
        raise WeightsError(f"{path}: these weights are not here (SHA-256 {sha256}). The model names them and does not "
                           "hold them: put that file there, or `dvc pull` it where it is tracked")
    check(path, sha256)
    return path


def read(path: Path, sha256: str) -> dict[str, "Tensor"]:
    """The tensors of the weights with this hash, by name, on the CPU.

    Raises:
        WeightsError: they are not here, or the file cannot be read without running code, is cut short or holds none.
    """
    place = place_of(path, sha256)
    if place == path:
        return tensors_of(path)
    try:
        return tensors_of(place)
    except WeightsError:
        if place != converted(sha256):
            raise
        place.unlink(missing_ok=True)     # a damaged file of the cache is made anew
        return read(path, sha256)


def keep(sha256: str, tensors: Mapping[str, "Tensor"]) -> Path:
    """Keep tensors as safetensors in the cache, under the hash of the publisher's file; the same bytes every time."""
    from safetensors.torch import save

    target = converted(sha256)
    if not target.exists():
        with replacing(target) as temporary:
            temporary.write_bytes(save({name: tensor.clone().contiguous() for name, tensor in tensors.items()}))
    return target


def safe_copy(path: Path, sha256: str) -> Path:
    """A copy of the named weights that a model can hold: a file in the format of safetensors, or a folder.

    Raises:
        WeightsError: they are not here, or cannot be read.
    """
    place = place_of(path, sha256)
    if place != path or place.is_dir():
        return place
    return keep(sha256, read(path, sha256))


def tensors_of(path: Path) -> dict[str, "Tensor"]:
    """The tensors of a file in the format of safetensors or PyTorch, by name.

    Raises:
        WeightsError: see `read`.
    """
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    found = _tensors(content)
    if not found:
        raise WeightsError(f"{path}: holds no tensors by name, so it is no checkpoint")
    return found


def _tensors(content: Any) -> dict[str, "Tensor"]:
    import torch

    items = content.items() if isinstance(content, Mapping) else ()
    return {str(name): value for name, value in items if isinstance(value, torch.Tensor)}


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(_unreadable(path, error)) from None


def _torch(path: Path) -> Any:
    """What a PyTorch file holds: tensors, plain values, and the `argparse.Namespace` that training scripts add."""
    import pickle

    import torch

    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:      # its message is about trusting the file, which nobody should
        if "unsupported global" in str(error).lower() or _is_pickle(path.read_bytes()):
            raise WeightsError(f"{path}: holds Python objects that could run code, so it is not read. Save its tensors "
                               "alone, best as safetensors") from None
        raise WeightsError(_unreadable(path)) from None
    except Exception as error:  # noqa: BLE001 - whatever PyTorch raises for damaged or foreign files
        raise WeightsError(_unreadable(path, error)) from None


def _is_pickle(data: bytes) -> bool:
    """Whether these bytes are one whole pickle; PyTorch reads those of protocol 4 and above not at all."""
    import pickletools

    try:
        return len(list(pickletools.genops(data))) > 1
    except Exception:  # noqa: BLE001 - these are arbitrary bytes, and each operation fails in its own way
        return False


def _unreadable(path: Path, error: Exception | None = None) -> str:
    words = f" ({type(error).__name__}: {' '.join(str(error).split())[:120]})" if error else ""
    return f"{path}: cut short, or no file of weights{words}. Fetch it again"
