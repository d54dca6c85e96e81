"""A registered model: found by name, served over HTTP without this repository or a pickle, refusing what is absurd."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner
from mlflow.exceptions import MlflowException
from support import registered_model, tiny_models

from heartml.cli import cli
from heartml.core import paths
from heartml.core.system import files
from heartml.inference import model_lookup, predict, serving, training_recordings
from heartml.models.fitted_model import Model
from heartml.registry import consent, tracking, versions

TASK = "simulated-murmur"
ROOT = Path(__file__).parents[2]


def register(client, key: str, before: str | None) -> versions.Version:
    return registered_model.register(client, TASK, key, before)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, empty_store: Path, fitted: dict[str, Path]) -> Iterator[Path]:
    """A working folder with a registry whose champion is the small model."""
    root = tmp_path_factory.mktemp("served")
    with registered_model.project(root, empty_store):
        shutil.copytree(fitted[TASK], paths.model(TASK))
        register(tracking.connect(), "first", None)
        yield root


def table(*kinds: str, seed: int = 900, **columns: list) -> pd.DataFrame:
    samples = [np.round(tiny_models.draw_sound(kind, seed + n).floats.astype(float), 5).tolist() for n,
               kind in enumerate(kinds)]
    return pd.DataFrame({"samples": samples, "sample_rate_hz": [4000] * len(kinds), **columns})


@pytest.fixture(scope="module")
def address(project: Path) -> Iterator[str]:
    """A server of the champion, started in an empty folder with no way to this repository, pickle forbidden."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    empty = project / "elsewhere"
    empty.mkdir()
    source = Path(versions.champion(tracking.connect(), TASK).source)
    stored = next((project / ".heartml" / "mlartifacts").rglob(f"{source.name}/artifacts"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PYTHONPATH"))}
    environment = {**kept, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
                   "HEARTML_TRUSTED_KEYS": str(project / paths.OWN_KEY.with_suffix(".pub")),
                   "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["mlflow", "models", "serve", "-m", stored, "--env-manager", "local", "-p", str(port), "-w", "1"]
    with (empty / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=empty, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server, empty / "log")
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(log.read_text())


def post(address: str, body: object) -> tuple[int, dict]:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_server_answers_what_the_model_answers(project: Path, address: str) -> None:
    sent = table("murmur", "murmur", "clean", unit_id=["2530", "2530", "9979"])
    status, told = post(address, {"dataframe_split": sent.to_dict(orient="split", index=False)})
    assert status == 200, told
    got = pd.DataFrame(told["predictions"])
    expected = serving.predict_with(paths.model(TASK), sent)
    assert got["decision"].tolist() == ["Present", "Absent"] == expected["decision"].tolist()
    assert got["unit_id"].tolist() == ["2530", "9979"]
    numbers = [column for column in expected if expected[column].dtype == float]
    assert got[numbers].to_numpy() == pytest.approx(expected[numbers].to_numpy(), abs=1e-6)
    assert numbers == ["confidence", "c_Present", "c_Unknown", "c_Absent", "p_Present", "p_Unknown", "p_Absent"]


def test_rows_without_a_unit_are_units(address: str) -> None:
    status, told = post(address, {"dataframe_records": table("murmur", "noise").to_dict(orient="records")})
    assert status == 200, told
    assert [row["decision"] for row in told["predictions"]] == ["Present", "Unknown"]
    assert [row["unit_id"] for row in told["predictions"]] == ["row 0", "row 1"]


def test_where_the_recording_is_the_unit_every_row_has_an_answer(fitted: dict[str, Path]) -> None:
    said = serving.predict_with(fitted["pascal-sounds"], serving.example())
    assert said["unit_id"].tolist() == ["2530", "2530", "row 2"]
    alone = serving.predict_with(fitted["pascal-sounds"], serving.example().iloc[[1]])
    numbers = [column for column in said if said[column].dtype == float]
    assert said.loc[1, numbers].to_numpy(float) == pytest.approx(alone.loc[0, numbers].to_numpy(float), abs=1e-6)


def test_a_server_refuses_and_says_which_row(address: str) -> None:
    sent = table("clean", "clean")
    sent.at[1, "samples"] = [0.0] * 8000
    status, told = post(address, {"dataframe_split": sent.to_dict(orient="split", index=False)})
    assert status == 400
    assert "row 1" in told["message"]
    assert "silent" in told["message"]
    status, told = post(address, {"dataframe_split": {"columns": ["samples"], "data": [[[0.1, 0.2]]]}})
    assert status == 400
    assert "sample_rate_hz" in json.dumps(told)


def test_the_stored_model_brings_its_own_code(project: Path) -> None:
    stored = next((project / ".heartml" / "mlartifacts").rglob("MLmodel")).parent
    code = (f"import sys, mlflow; mlflow.pyfunc.load_model({str(stored)!r}); "
            "print(*(m.__file__ for name, m in sys.modules.items() if name.startswith('heartml.')), sep='\\n')")
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True,
                          env={**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"})
    used = done.stdout.split()
    assert any(file.endswith("models/fitted_model.py") for file in used)
    assert all(file.startswith(str(stored)) for file in used)


def test_the_stored_model_holds_no_pickle(project: Path) -> None:
    stored = [path for path in (project / ".heartml" / "mlartifacts").rglob("*") if path.is_file()]
    assert any(path.name == "model.safetensors" for path in stored)
    assert any(path.name == "params.yaml" for path in stored)
    pickled = [path for path in stored if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".skops")
               or path.read_bytes()[:2] in (b"\x80\x04", b"\x80\x05")]
    assert not pickled


ABSURD = {
    "no array": ({"samples": ["a sound"]}, "row 0: `samples`"),
    "empty": ({"samples": [[]]}, "row 0: `samples`"),
    "no numbers": ({"samples": [["a", "b"]]}, "row 0: `samples` holds something"),
    "not finite": ({"samples": [[0.1, float("nan")] * 4000]}, "finite"),
    "nested": ({"samples": [[[0.1, 0.2]] * 4000]}, "one row"),
    "ragged": ({"samples": [[[0.1], [0.2, 0.3]]]}, "no number"),
    "silent": ({"samples": [[0.0] * 8000]}, r"\[silent\]"),
    "short": ({"samples": [[0.1, -0.1] * 100]}, r"\[short\]"),
    "one huge sample": ({"samples": [[0.1, -0.1] * 4000 + [1e6]]}, r"\[outlier\]"),
    "rate zero": ({"sample_rate_hz": [0]}, "`sample_rate_hz` is 0"),
    "rate without end": ({"sample_rate_hz": [float("inf")]}, "`sample_rate_hz`"),
    "rate missing": ({"sample_rate_hz": [float("nan")]}, "`sample_rate_hz`"),
    "rate none": ({"sample_rate_hz": [None]}, "`sample_rate_hz`"),
    "rate in words": ({"sample_rate_hz": ["4000"]}, "`sample_rate_hz`"),
    "rate broken": ({"sample_rate_hz": [4000.5]}, "`sample_rate_hz`"),
    "hours": ({"samples": [np.zeros(500 * 3601, np.float32)], "sample_rate_hz": [500]}, "too many"),
}


@pytest.mark.parametrize("name", ABSURD)
def test_what_is_absurd_is_refused(name: str, fitted: dict[str, Path]) -> None:
    columns, words = ABSURD[name]
    one = {key: pd.Series(value, dtype=object) for key, value in columns.items()}
    sent = pd.DataFrame({**table("clean").to_dict(orient="series"), **one})
    with pytest.raises(MlflowException, match=words):
        serving.predict_table(Model.load(fitted[TASK]), tiny_models.PARAMS, sent)


def test_a_server_refers_what_the_model_refers(fitted: dict[str, Path], tmp_path: Path) -> None:
    plain = serving.predict_table(Model.load(fitted["simulated-murmur"]), tiny_models.PARAMS, serving.example())
    assert plain["decision"].tolist() == plain["leaning"].tolist()
    careful = replace(Model.load(fitted["simulated-murmur"]), refer_below=float(plain["confidence"].max()))
    careful.save(tmp_path)
    said = serving.predict_table(Model.load(tmp_path), tiny_models.PARAMS, serving.example())
    assert sorted(said["decision"] == "refer") == [False, *[True] * (len(said) - 1)]
    changed = ["decision", "reasons"]
    pd.testing.assert_frame_equal(said.drop(columns=changed), plain.drop(columns=changed))
    assert [bool(reason) for reason in said["reasons"]] == (said["decision"] == "refer").tolist()
    assert set(plain["reasons"]) == {""}


def test_a_request_has_a_limit(fitted: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.load(fitted[TASK])
    for sent in (table(), pd.concat([table("clean")] * (serving.MAX_ROWS + 1))):
        with pytest.raises(MlflowException, match="rows in one request"):
            serving.predict_table(model, tiny_models.PARAMS, sent)
    monkeypatch.setattr(serving, "MAX_SAMPLES", 20_000)
    with pytest.raises(MlflowException, match="row 1: 12000 samples are too many"):
        serving.predict_table(model, tiny_models.PARAMS, table("clean", "clean"))


def test_serving_and_predicting_agree(project: Path) -> None:
    sounds = {"a.wav": "murmur", "b.wav": "noise"}
    for n, (name, kind) in enumerate(sounds.items()):
        soundfile.write(name, tiny_models.draw_sound(kind, 40 + n).pcm, 4000)
    scored = predict.run([Path(name) for name in sounds], None, None)
    assert "version 1, the champion" in scored.model.description
    sent = pd.DataFrame({"samples": [tiny_models.draw_sound(k, 40 + n).floats for n, k in enumerate(sounds.values())],
                         "sample_rate_hz": [4000, 4000]})
    served = serving.predict_with(scored.model.folder, sent)
    assert served["decision"].tolist() == [answer.decision for answer in scored.predictions]
    assert served["confidence"].tolist() == pytest.approx([one.confidence for one in scored.predictions], abs=1e-9)


def test_a_champion_is_found_by_every_name(project: Path) -> None:
    for wanted in (None, TASK, f"{TASK}@champion", f"{TASK}/1"):
        found = model_lookup.locate(wanted, None, (TASK,))
        assert (found.name, found.version) == (TASK, "1")
        assert (found.folder / "model.json").read_bytes() == (paths.model(TASK) / "model.json").read_bytes()
    for wanted in (f"{TASK}@challenger", f"{TASK}/7", "circor-murmur", "no such thing"):
        way_out = f"its newest version is {TASK}/1" if wanted.startswith(TASK) else "`heartml models` lists what is"
        with pytest.raises(model_lookup.NoModel, match=f"not in the registry; {way_out}"):
            model_lookup.locate(wanted, None, (TASK,))


def test_the_training_data_of_a_registered_version_are_known_where_its_run_has_them(project: Path) -> None:
    client = tracking.connect()
    version = versions.get(client, f"{TASK}/1")
    assert model_lookup.locate(f"{TASK}/1", None, (TASK,)).folds is None
    files.write_parquet(project / "folds.parquet", pd.DataFrame({"recording_id": ["a", "b"], "part": ["3", "test"]}))
    tracking.log_files(client, version.run_id, {model_lookup.FOLDS: project / "folds.parquet"})
    shutil.rmtree(paths.cache() / "models")      # the reply was kept, because files of a run do not change the store
    known = training_recordings.read(model_lookup.locate(f"{TASK}/1", None, (TASK,)).folds)
    assert (known.use_of("a"), known.use_of("b"), known.use_of("c")) == ("trained", "held out", None)


def test_a_second_look_asks_nobody_until_the_registry_changes(project: Path) -> None:
    code = ("import sys; from heartml.inference import model_lookup as locate; "
            "print(locate.locate(None, None, ['simulated-murmur']).version)")
    asked = "; print('mlflow' in sys.modules)"

    def look() -> list[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}     # MLflow sets some as it goes
        done = subprocess.run([sys.executable, "-c", code + asked], env={**kept, "PYTHONPATH": str(ROOT)},
                              capture_output=True, text=True, check=True)
        assert not (project / "mlflow.db").exists()
        return done.stdout.split()

    shutil.rmtree(paths.cache() / "models", ignore_errors=True)
    assert look() == ["1", "True"]
    assert look() == ["1", "False"]
    register(tracking.connect(), "second", "1")
    assert look() == ["2", "True"]
    assert look() == ["2", "False"]


def test_a_process_that_knows_nothing_finds_the_champions_files(project: Path, tmp_path: Path) -> None:
    code = "from heartml.inference import model_lookup; " \
           "print(model_lookup.locate(None, None, ['simulated-murmur']).folder)"
    kept = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}   # MLflow sets it for its children
    environment = {**kept, "PYTHONPATH": str(ROOT), "HEARTML_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not Path("mlflow.db").exists()


def test_what_is_known_against_a_version_reaches_every_answer(project: Path, tmp_path: Path) -> None:
    client = tracking.connect()
    version = versions.champion(client, TASK)
    assert version is not None
    assert model_lookup.locate(None, TASK, (TASK,)).cautions == ()
    consent.add_patient(client, f"{TASK}/{version.number}", "simulated-100", 4, ["training"])
    words = (f"{TASK} version {version.number}: consent for data in it was withdrawn: "
             "simulated-100 (4 recordings, training)")
    assert model_lookup.locate(None, TASK, (TASK,)).cautions == (words,)
    done = CliRunner().invoke(cli, ["verify", TASK, "--to", str(tmp_path / "served")])
    assert done.exit_code == 0, done.output
    assert f"Caution: {words}" in done.stdout
    served = serving.Classifier()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEARTML_TRUSTED_KEYS", str(paths.OWN_KEY.with_suffix(".pub")))
        served.load_context(SimpleNamespace(artifacts={
            "model": str(next((tmp_path / "served").rglob("model.json")).parent), "params": "params.yaml"}))
    told = served.predict(None, table("clean", "clean"))
    assert [row.startswith(words) for row in told["warnings"]] == [True, True]
    plain = serving.predict_table(served.model, served.params, table("clean", "clean"))
    assert list(told) == list(plain) and not plain["warnings"].str.contains("consent").any()


def test_a_model_in_artifacts_has_the_cautions_of_the_version_with_its_content(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "simulated-sounds"       # a task without a champion: its only version was refused
    refused = {"promote": False, "reason": "refused: floors: below", "criteria": []}
    shutil.copytree(paths.model(TASK), paths.model(name))
    client = tracking.connect()
    version = versions.register(client, name, run_id="0" * 32, source="runs:/0/model", key="its content")
    versions.settle(client, version)
    versions.record_verdict(client, version, refused, None)
    for key, expected in (("its content", f"{name} version 1: the gate refused it (floors: below)"),
                          ("another", f"{paths.model(name)}: not registered, so the gate has not judged it")):
        monkeypatch.setattr(model_lookup.capture, "content_key", lambda _, key=key: key)
        [found] = model_lookup.locate(None, name, (name,)).cautions
        assert found.startswith(expected)
    monkeypatch.undo()
    assert model_lookup.locate(None, name, (name,)).cautions == (), "without its data no content is known"
