"""Check that loading a stored model runs no code: the model may hold only text and safetensors.

In: the folder of a stored model. Out: what is wrong with it, one sentence a file.

Names and bytes are compared with a list of what is allowed. A pickle under any name (pickle, joblib, cloudpickle,
torch's zip, NumPy's object arrays) is neither text nor safetensors. The folder `code/` of a stored model is Python that
MLflow's server runs. `heartml predict` never imports it, and the audit compares it with the commit.
"""

import importlib.util
import json
import marshal
import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from heartml.core.system.errors import HeartMLError

_TEXT = (".json", ".txt", ".py", ".yaml", ".yml", ".css", ".jinja", ".typed", ".html", ".js", ".svg", ".webmanifest")
_WITHOUT_SUFFIX = ("MLmodel",)       # text files whose names have no suffix
_LOADER = "mlflow.pyfunc.loaders.code_model"
_HEADER_LIMIT = 100_000_000          # bytes; the limit of the safetensors library


class ContentError(HeartMLError):
    """A model holds something that could run code when it is read. The message names the file."""


def check(folder: Path) -> None:
    """Check that a stored model holds nothing that could run code.

    Raises:
        ContentError: `problems` finds something.
    """
    found = problems(folder)
    if found:
        raise ContentError(f"{'; '.join(found[:5])}. A model is text and safetensors, so that loading it runs no code")


def problems(folder: Path) -> list[str]:
    """What is wrong with the files of a stored model (an MLflow model or a plain ensemble), one sentence a file."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        wrong = "a link" if path.is_symlink() else _problem(path) if path.is_file() else None
        found += [f"{name}: {wrong}"] if wrong else []
    return found + (_flavour_problems(folder / "MLmodel") if (folder / "MLmodel").is_file() else [])


def foreign_bytecode(folder: Path) -> list[str]:
    """Compiled Python files that differ from what their source compiles to; one sentence a file.

    A server would run such a file instead of its source. Compiled files as such are no fault: a server that loads a
    model from the store leaves them there.
    """
    wrong = {path.relative_to(folder).as_posix(): _bytecode_problem(path) for path in sorted(folder.rglob("*.pyc"))}
    return [f"{name}: {words}" for name, words in wrong.items() if words]


def _bytecode_problem(path: Path) -> str:
    try:
        source = Path(importlib.util.source_from_cache(str(path)))
    except ValueError:
        return "bytecode outside __pycache__"
    data = path.read_bytes()
    if not source.is_file():
        return "bytecode without a source"
    if data[:4] != importlib.util.MAGIC_NUMBER:
        return "bytecode of another Python than this one"
    try:
        same = marshal.loads(data[16:]) == compile(source.read_bytes(), str(source), "exec", dont_inherit=True)
    except (ValueError, EOFError, TypeError, SyntaxError):
        same = False
    return "" if same else "bytecode that differs from its source"


def _problem(path: Path) -> str | None:
    if path.name == "registered_model_meta" or path.suffix == ".pyc":
        return None                  # MLflow and Python write these themselves; see `foreign_bytecode`
    reader: Callable[[Path], str | None] | None = _safetensors_problem if path.suffix == ".safetensors" else (
        _text_problem if path.suffix in _TEXT or path.name in _WITHOUT_SUFFIX else None)
    return reader(path) if reader else "neither text nor safetensors by its name"


def _text_problem(path: Path) -> str | None:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return "called text, but holds other bytes (a pickle?)"
    return "called text, but holds zero bytes" if "\0" in text else "a pickle" if _is_pickle(data) else None


def _is_pickle(data: bytes) -> bool:
    """Whether these bytes are a pickle from the first byte to the last. Pickles of protocols 0 and 1 look like text."""
    try:
        operations = [(operation.name, position) for operation, _, position in pickletools.genops(data.rstrip(b"\r\n"))]
    except Exception:  # noqa: BLE001 - this is arbitrary text, and each operation of a pickle fails in its own way
        return False
    return len(operations) > 1 and operations[-1] == ("STOP", len(data.rstrip(b"\r\n")) - 1)


def _safetensors_problem(path: Path) -> str | None:
    """What is wrong with a file that must be a JSON header and numbers, and not a byte more; `None`: nothing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _HEADER_LIMIT):
            return "called safetensors, but has no valid header length"
        try:
            header: Mapping[str, Any] = json.loads(file.read(length))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return "called safetensors, but its header cannot be read"
    return None if max(ends, default=0) == size - 8 - length else "safetensors with more bytes than tensors"


def _flavour_problems(path: Path) -> list[str]:
    """Check that `MLmodel` allows one way of loading only: code that is stored as text, and files inside the folder."""
    try:
        flavours = dict(yaml.safe_load(path.read_text(encoding="utf-8"))["flavors"])
        own = dict(flavours.pop("python_function"))
    except (ValueError, TypeError, KeyError, yaml.YAMLError):
        return ["MLmodel: names no flavour python_function"]
    found = [f"MLmodel: flavour {name}" for name in flavours]
    if own.get("loader_module") != _LOADER or "python_model" in own:
        found.append(f"MLmodel: loaded by {own.get('loader_module')}, not as code that is text ({_LOADER})")
    inside = [str(own.get("code")), *(str(item.get("path")) for item in dict(own.get("artifacts", {})).values())]
    found += [f"MLmodel: {place} lies outside of it" for place in inside
              if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts]
    return found
