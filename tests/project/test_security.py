"""One attack a test: paths, bombs, YAML, formulas, markup, models, requests. What must not happen does not.

tests/project/test_fuzz.py has what nobody thought of; tests/registry/test_signing.py what becomes of models that nobody
signed.
"""

import ast
import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import support.publisher_layouts as made
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from support import hostile_files, publisher_files, tiny_models
from support.workspaces import ROOT, Workspace

from heartml.cli import tables
from heartml.core import config, paths
from heartml.core.system import files, hashing, untrusted
from heartml.core.system.errors import HeartMLError
from heartml.core.system.text import cell, one_line, printable
from heartml.data import datasets, ingest
from heartml.data.datasets import LayoutError, circor, pascal
from heartml.inference import inputs, serving
from heartml.models.fitted_model import Model, ModelError
from heartml.registry import model_files
from heartml.registry.versions import RegistryError, Version
from heartml.release import outcome as results

SECRET = "the-secret-of-another-folder"
CODE = [path for package in ("heartml", "flows") for path in sorted((ROOT / package).rglob("*.py"))]


# Paths that leave the folder

def secret(folder: Path) -> Path:
    """A table, a sound and a text beside the publisher's folder that nobody offered."""
    folder.mkdir()
    (folder / "secret.wav").write_bytes(publisher_files.wav(publisher_files.sound(77)))
    (folder / "secret.csv").write_text(f"fname,label\nset_a/{SECRET}__201101010000.wav,normal\n")
    (folder / "secret.txt").write_text(f"{SECRET}\n0.0\t0.1\t1\n#Age: {SECRET}\n")
    return folder


def test_what_leads_out_of_an_ingested_folder_is_quarantined_and_never_read(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.root)
    outside, clinic = secret(tmp_path / "outside"), made.generic(tmp_path / "clinic", "clinic")
    (clinic / "linked").symlink_to(outside)
    (clinic / "link.wav").symlink_to(outside / "secret.wav")
    attacks = ["../outside/secret.wav", str(outside / "secret.wav"), "linked/secret.wav", "link.wav",
               "sounds/../../outside/secret.wav", "..\\outside\\secret.wav"]
    with (clinic / "recordings.csv").open("a") as table:
        head = next(csv.reader((clinic / "recordings.csv").open()))
        for number, attack in enumerate(attacks):
            row = {"file": attack, "subject": f"x{number}", "murmur": "no"}
            table.write(",".join(row.get(name, "") for name in head) + "\n")
    outcome = ingest.run("generic", clinic)
    assert outcome.quarantined["outside"] == len(attacks) - 1      # two are one path
    kept = pd.read_parquet(paths.RECORDINGS)
    assert len(kept) == outcome.recordings > 0
    assert hashing.sha256_file(outside / "secret.wav") not in set(kept["source_sha256"])


@pytest.mark.parametrize("suffix", [".hea", ".tsv", ".txt", "training_data.csv"])
def test_a_publishers_side_file_that_is_a_link_to_elsewhere_is_not_read(suffix: str, tmp_path: Path) -> None:
    folder, outside = publisher_files.circor(tmp_path / "publisher"), secret(tmp_path / "outside")
    name = {".txt": "training_data/24.txt"}.get(suffix, f"training_data/24_AV{suffix}")
    link = folder / (suffix if suffix.endswith("csv") else name)
    link.unlink()
    link.symlink_to(outside / "secret.txt")
    if suffix.endswith("csv"):
        with pytest.raises(LayoutError, match="leads out of the folder") as refused:
            circor.read(folder)
        assert SECRET not in str(refused.value)
        return
    (folder / "SHA256SUMS.txt").unlink()
    layout = circor.read(folder)
    assert "outside" in set(layout.refused["reason"])
    assert SECRET not in "".join(table.to_csv() for table in (layout.recordings, layout.annotations, layout.refused))


def test_a_publishers_table_that_is_a_link_to_elsewhere_is_not_read(tmp_path: Path) -> None:
    folder, outside = publisher_files.pascal(tmp_path / "publisher"), secret(tmp_path / "outside")
    (folder / "set_a.csv").unlink()
    (folder / "set_a.csv").symlink_to(outside / "secret.csv")
    with pytest.raises(LayoutError, match="leads out of the folder") as refused:
        pascal.read(folder)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("table", ["../outside/secret.csv", "/etc/passwd", "..\\x.csv", "x/../../y.csv", "a\x00b",
                                   "x" * 5000])
def test_a_mapping_names_no_table_outside(table: str, tmp_path: Path) -> None:
    secret(tmp_path / "outside")
    clinic = made.generic(tmp_path / "clinic", "clinic")
    told = yaml.safe_load((clinic / "clinic.yaml").read_text()) | {"table": table}
    (clinic / "clinic.yaml").write_text(yaml.safe_dump(told))
    with pytest.raises(LayoutError, match=r"table|YAML") as refused:
        source, root = datasets.bind("generic", clinic)
        source.read(root)
    assert SECRET not in str(refused.value)


def test_a_table_for_predict_may_name_any_file_and_shows_nothing_of_what_is_no_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heartml.inference import output, predict

    outside = secret(tmp_path / "outside")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("visits.csv").write_text(f"path\n../outside/secret.wav\n{outside}/secret.wav\n../outside/secret.txt\n/etc/passwd\n")
    items = inputs.gather([Path("visits.csv")])
    heard = [predict.score_recording(item, tiny_models.PARAMS)[0] for item in items]
    assert [h.fault is None for h in heard] == [True, True, False, False]
    told = "".join(output.complaint(h) for h in heard)
    assert SECRET not in told and "root:" not in told


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
    read = {"mapping": lambda: datasets.bind("generic", tmp_path), "params": config.load,
            "MLmodel": lambda: model_files.ensemble_in(tmp_path)}[reader]
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


# Spreadsheets, terminals, pages

FEW = settings(max_examples=60, deadline=None, derandomize=True)
SIGNS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠A")


@FEW
@given(st.text())
@example("=cmd|' /C calc'!A0")
def test_no_text_becomes_a_formula_or_a_control_character(text: str) -> None:
    shown = cell(text)
    assert not shown.startswith(SIGNS)
    assert shown.isprintable()
    if text.isprintable() and not text.startswith(SIGNS):
        assert shown == text
    assert one_line(text).isprintable()


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_shown(text: str) -> None:
    shown = cell(text)
    assert shown.startswith(("'", "\\"))
    assert shown.endswith(text.strip())


def test_every_module_that_writes_a_csv_is_known_and_writes_no_name_that_a_user_chose() -> None:
    """A new one has to come here, and put its texts through `cell`."""
    known = {
        "heartml/inference/output.py": "texts go through `cell`",
        "heartml/stages/evaluate.py": "classes of `core/tasks.py` and numbers",
        "heartml/stages/robustness.py": "conditions of params.yaml and numbers",
        "heartml/data/simulation/corpus.py": "the simulator's own words",
        "heartml/evaluation/leave_out/scratch.py": "hashed, not written",
    "heartml/evaluation/protocols/circor_m2d.py": "hashed, not written",
        "heartml/evaluation/protocols/cohort.py": "hashed, not written",
    "heartml/release/gate_inputs.py": "hashed, not written",
    }
    pattern = re.compile(r"\.to_csv\(|csv\.writer\(|DictWriter\(|to_excel\(")
    assert {path.relative_to(ROOT).as_posix() for path in CODE if pattern.search(path.read_text())} == set(known)


HOSTILE_NAME = "x\x1b[2J\x1b]0;owned\x07[bold red][/nothing]\u202e<script>alert(1)</script>\nheartml: all is well"


def no_command(text: str) -> None:
    """Nothing in `text` speaks to a terminal."""
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text
    assert "heartml: all is well" not in text.splitlines()


def test_an_error_cannot_command_the_terminal_or_look_like_two(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    done = subprocess.run([sys.executable, "-m", "heartml", "ingest", "generic", tmp_path / HOSTILE_NAME],
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    no_command(done.stderr)


def test_the_registrys_words_are_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "600")
    results.show_versions([Version(HOSTILE_NAME, "1", "r", "s", (HOSTILE_NAME,), {"heartml.reason": HOSTILE_NAME}, 0)])
    shown = capsys.readouterr().out
    no_command(shown)
    assert "[bold" in shown


def test_a_collections_name_is_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    number = {"value": 0.5, "low": 0.4, "high": 0.6}
    scores = {"macro_auc": number}
    one = {"value": HOSTILE_NAME, "units": 3, "groups": 2, "best_floor": None, "floors": {}, "scores": scores,
           "in_collection": scores, "difference": number, "unheard": ["Unknown"],
           "per_class": {"Present": {"units": 3, "estimable": False}}}
    tables.leave_out({"metric": "macro_auc", "task": "circor-murmur", "by": "source", "left_out": [one],
                       "min_groups": 10, "confidence": 0.95})
    shown = capsys.readouterr().out
    no_command(shown)
    assert "[/nothing]" in shown.replace("\n", "")


def test_a_log_line_cannot_forge_another(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    from flows.support import console

    with console.verbose():
        logging.getLogger("prefect.flow_runs").warning(HOSTILE_NAME)
    shown = capsys.readouterr().err
    no_command(shown)
    assert "[/nothing]" in shown.replace("\n", "")


@FEW
@given(st.text())
def test_what_is_printable_is_left_alone(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(text) == text or not text.isprintable()


# Code that must not be there

@cache
def every_call() -> list[tuple[Path, str, ast.Call]]:
    """Module, name and node of every call to a name, `np.load`, `eval`."""
    return [(path, ast.unparse(node.func), node) for path in CODE for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute))]


FORBIDDEN = ("eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "torch.load", "joblib.load",
             "yaml.load", "yaml.unsafe_load", "yaml.full_load", "marshal.loads", "marshal.load",
             "shelve.open", "tempfile.mktemp", "pd.read_pickle", "cloudpickle.load", "cloudpickle.loads", "dill.load")
ALLOWED = {("heartml/core/system/untrusted.py", "yaml.load"), ("heartml/registry/signing/content.py", "marshal.loads"),
           ("heartml/audit/evidence.py", "yaml.load")}      # a SafeLoader of its own


def test_no_module_runs_what_it_reads() -> None:
    found = {(path.relative_to(ROOT).as_posix(), name) for path, name, _ in every_call() if name in FORBIDDEN}
    assert found <= ALLOWED


def test_every_array_is_loaded_without_pickle_and_no_process_through_a_shell() -> None:
    seen = 0
    for path, name, node in every_call():
        words = {word.arg: word.value for word in node.keywords}
        if name in ("np.load", "numpy.load"):
            seen += 1
            assert ast.unparse(words["allow_pickle"]) == "False", f"{path}:{node.lineno}"
        assert ast.unparse(words["shell"]) == "False" if "shell" in words else True, f"{path}:{node.lineno}"
        if name.startswith("subprocess.") and node.args:
            assert not isinstance(node.args[0], (ast.JoinedStr, ast.BinOp)), f"{path}:{node.lineno}: a text"
    assert seen >= 2


# A hostile model in the registry

@pytest.mark.parametrize("place", ["../outside", "/etc", "artifacts/../../outside", "linked", "a\x00b"])
def test_a_stored_model_names_no_ensemble_outside_of_it(place: str, tmp_path: Path) -> None:
    outside = secret(tmp_path / "outside")
    stored = tmp_path / "stored"
    stored.mkdir()
    (stored / "linked").symlink_to(outside)
    flavour = {"python_function": {"artifacts": {"model": {"path": place}}}}
    (stored / "MLmodel").write_text(yaml.safe_dump({"flavors": flavour}))
    with pytest.raises(RegistryError, match=r"outside of it|no stored model"):
        model_files.ensemble_in(stored)


def damaged(rng: random.Random, folder: Path, to: Path) -> None:
    """A copy of a model one of whose files something happened to, or that says something absurd."""
    to.mkdir()
    names = sorted(path.name for path in folder.iterdir())
    chosen = rng.choice(names)
    for name in names:
        data = (folder / name).read_bytes()
        (to / name).write_bytes(hostile_files.mutated(rng, data) if name == chosen else data)
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
    good = np.round(tiny_models.sound("clean", 5).floats.astype(float), 4).tolist()
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
    soundfile.write(target, tiny_models.sound("clean", 5).pcm, 4000)
    model = Model.load(fitted["simulated-murmur"])
    serving.respond(model, tiny_models.PARAMS, serving.example())      # what is loaded once is loaded
    for name, columns in requests(target).items():
        sent = pd.DataFrame({key: pd.Series(value, dtype=object) for key, value in columns.items()})
        with watched() as opened, pytest.raises(MlflowException) as refused:
            serving.respond(model, tiny_models.PARAMS, sent)
        assert refused.value.get_http_status_code() == 400, name
        assert not opened, f"{name}: {opened}"
    good = pd.DataFrame({"samples": [tiny_models.sound("clean", 5).floats], "sample_rate_hz": [4000],
                         "unit_id": [str(target)]})
    with watched() as opened:
        said = serving.respond(model, tiny_models.PARAMS, good.assign(path=str(target), url="http://127.0.0.1:9/"))
    assert len(said) == 1
    assert not opened


def test_the_watch_would_have_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with watched() as opened:
        (tmp_path / "a").read_text()
    assert any(line.startswith("open ") for line in opened)


# Files on the way

def test_a_link_in_the_way_of_a_temporary_file_is_not_written_through(tmp_path: Path) -> None:
    victim, target = tmp_path / "victim", tmp_path / "answers.csv"
    victim.write_text("mine")
    with files.replacing(target) as temporary:
        temporary.touch()
    target.unlink()
    temporary.symlink_to(victim)      # the name that this thread uses
    files.write_json(target, {"a": 1})
    assert victim.read_text() == "mine"
    assert not target.is_symlink()
    assert files.read_json(target) == {"a": 1}


def test_a_table_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "visits.csv").open("wb") as file:
        file.truncate(untrusted.MOST_TABLE_BYTES * 4)      # sparse: no disk is used
    started = time.process_time()
    with pytest.raises(untrusted.DocumentError, match="more than"):
        untrusted.text(tmp_path / "visits.csv", most_bytes=1 << 20)
    assert time.process_time() - started < 1
