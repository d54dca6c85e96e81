"""One attack a test: paths, bombs, YAML, formulas, markup, models, requests. What must not happen does not.

tests/project/test_fuzz.py has what nobody thought of; tests/registry/test_signing.py what becomes of models that nobody
signed.
"""

import json
import os
import random
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from mlflow.exceptions import MlflowException
from support import hostile_files, tiny_models

from heartml.core import config
from heartml.core.system import untrusted
from heartml.core.system.errors import HeartMLError
from heartml.data import datasets
from heartml.inference import serving
from heartml.models.fitted_model import Model, ModelError
from heartml.registry import model_files


# YAML
def bomb(levels: int = 12) -> str:
    """A few hundred bytes that would be nine to the twelfth."""
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int = 30) -> str:
    lines = ["m0: &m0 {k: v}"] + [f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}, *m{n - 1}]}}" for n in range(1, levels)]
    return "\n".join(lines)


HOSTILE_YAML = {
    "aliases": bomb(), "merges": merges(), "deep": "[" * 100_000, "deep keys": "{a: " * 5000,
    "deep lines": "- " * 20_000,
    "large": "a: " + "x" * (1 << 20), "digits": "a: " + "9" * 10_000, "a day": "a: 2026-13-45",
    "apply": "a: !!python/object/apply:os.system ['touch harmed']",
    "new": "a: !!python/object/new:subprocess.Popen [['touch', 'harmed']]", "name": "a: !!python/name:os.system",
    "module": "!!python/module:antigravity", "bytes": "\x00\x01", "half": "a: 'never closed",
}


@pytest.mark.parametrize("name", HOSTILE_YAML)
@pytest.mark.parametrize("reader", ["mapping", "params", "MLmodel"])
def test_hostile_yaml_is_refused_at_once(
    reader: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = {"mapping": "clinic.yaml", "params": "params.yaml", "MLmodel": "MLmodel"}[reader]
    Path(file).write_text(HOSTILE_YAML[name])
    read = {"mapping": lambda: datasets.open_dataset("generic", tmp_path), "params": config.load,
            "MLmodel": lambda: model_files.ensemble_folder(tmp_path)}[reader]
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(HeartMLError) as refused:
            read()
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 3
    assert len(str(refused.value)) < 1500
    assert not Path("harmed").exists()


def damaged(rng: random.Random, folder: Path, to: Path) -> None:
    """A copy of a model one of whose files something happened to, or that says something absurd."""
    to.mkdir()
    names = sorted(path.name for path in folder.iterdir())
    chosen = rng.choice(names)
    for name in names:
        data = (folder / name).read_bytes()
        (to / name).write_bytes(hostile_files.mutate(rng, data) if name == chosen else data)
    if rng.random() < 0.4:
        told = json.loads((folder / "model.json").read_text())
        key = rng.choice(sorted(told))
        told[key] = rng.choice((None, [], {}, "../../x", -1, 1e308, "x" * 9999, [[]], [{"trial": "../../etc/passwd"}]))
        (to / "model.json").write_text(json.dumps(told))


def test_a_damaged_or_hostile_model_is_told_from_a_good_one(fitted: dict[str, Path], tmp_path: Path) -> None:
    outcomes = set()
    for number in range(150):
        damaged(random.Random(number), fitted["simulated-murmur"], tmp_path / str(number))
        try:
            Model.load(tmp_path / str(number))
            outcomes.add("loaded")
        except HeartMLError as error:
            outcomes.add("refused")
            assert len(str(error)) < 1000, number
    assert outcomes == {"loaded", "refused"}


def test_a_deep_description_of_a_model_is_refused(fitted: dict[str, Path], tmp_path: Path) -> None:
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((fitted["simulated-murmur"] / name).read_bytes())
    (tmp_path / "model.json").write_text("[" * 200_000)
    with pytest.raises(ModelError, match="damaged"):
        Model.load(tmp_path)


# The scoring server
_opened: list[str] | None = None


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is not None and event in ("open", "os.listdir", "os.scandir", "socket.connect", "socket.getaddrinfo",
                                         "subprocess.Popen", "urllib.Request"):
        _opened.append(f"{event} {arguments[0]!r}")


@contextmanager
def watched() -> Iterator[list[str]]:
    """What this process opens, looks up, connects to or starts meanwhile."""
    global _opened  # noqa: PLW0603 - a hook cannot be taken out again
    if not getattr(sys, "heartml_watched", False):
        sys.addaudithook(_hook)
        sys.heartml_watched = True
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


def requests(target: Path) -> dict[str, dict[str, list[object]]]:
    good = np.round(tiny_models.draw_sound("clean", 5).floats.astype(float), 4).tolist()
    cells: dict[str, object] = {
        "a path": str(target), "a path as bytes": os.fsencode(target), "an address": "http://127.0.0.1:9/a.wav",
        "a file address": f"file://{target}", "a dict": {"path": str(target)}, "a list of paths": [str(target)] * 8000,
        "a huge array": np.zeros(31_000_000, np.float32), "a path object": target, "text in base64": "UklGRg==",
    }
    found = {name: {"samples": [value], "sample_rate_hz": [4000]} for name, value in cells.items()}
    found |= {"a path beside": {"path": [str(target)]},
              "a path for a rate": {"samples": [good], "sample_rate_hz": [str(target)]},
              "a path for a name and no samples": {"unit_id": [str(target)], "sample_rate_hz": [4000]}}
    return found


def test_a_request_opens_no_file_and_no_connection(fitted: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "target.wav"
    soundfile.write(target, tiny_models.draw_sound("clean", 5).pcm, 4000)
    model = Model.load(fitted["simulated-murmur"])
    serving.predict_table(model, tiny_models.PARAMS, serving.example())      # what is loaded once is loaded
    for name, columns in requests(target).items():
        sent = pd.DataFrame({key: pd.Series(value, dtype=object) for key, value in columns.items()})
        with watched() as opened, pytest.raises(MlflowException) as refused:
            serving.predict_table(model, tiny_models.PARAMS, sent)
        assert refused.value.get_http_status_code() == 400, name
        assert not opened, f"{name}: {opened}"
    good = pd.DataFrame({"samples": [tiny_models.draw_sound("clean", 5).floats], "sample_rate_hz": [4000],
                         "unit_id": [str(target)]})
    with watched() as opened:
        said = serving.predict_table(model, tiny_models.PARAMS, good.assign(path=str(target), url="http://127.0.0.1:9/"))
    assert len(said) == 1
    assert not opened


def test_the_watch_would_have_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with watched() as opened:
        (tmp_path / "a").read_text()
    assert any(line.startswith("open ") for line in opened)


def test_a_table_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "visits.csv").open("wb") as file:
        file.truncate(untrusted.MAX_TABLE_BYTES * 4)      # sparse: no disk is used
    started = time.process_time()
    with pytest.raises(untrusted.DocumentError, match="more than"):
        untrusted.read_text(tmp_path / "visits.csv", max_bytes=1 << 20)
    assert time.process_time() - started < 1
