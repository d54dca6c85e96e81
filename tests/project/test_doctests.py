"""Examples in docstrings are run: each one shows what its function gives, and the families that must have some do."""

import doctest
import importlib
from pathlib import Path

import pytest
from support.workspaces import ROOT

# Modules whose public functions are best explained by a value that a reader can check by hand.
EXPLAINED = ("heartml/metrics", "heartml/models/pooling.py", "heartml/data/splitting", "heartml/release/gate.py",
             "heartml/release/champion_criteria.py", "heartml/release/looks.py")


def modules_with_examples() -> list[str]:
    files = sorted(path for path in (ROOT / "heartml").rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))
    return [name_of(path) for path in files]


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("name", modules_with_examples())
def test_every_example_gives_what_it_says(name: str) -> None:
    ran = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert ran.attempted
    assert not ran.failed, f"{name}: {ran.failed} of {ran.attempted} examples; `python -m doctest` shows them"


@pytest.mark.parametrize("place", EXPLAINED)
def test_what_is_best_explained_by_values_has_examples(place: str) -> None:
    path = ROOT / place
    found = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    without = [file.name for file in found if file.name != "__init__.py" and ">>> " not in file.read_text("utf-8")]
    assert not without, f"{place}: no example in {', '.join(without)}"
