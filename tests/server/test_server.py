"""`heartml serve`: it answers as `predict`, refuses what is absurd, follows the champion, and is a real process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import uvicorn
from starlette.testclient import TestClient
from support import many_heads, registered_model, tiny_models
from support.local_services import free_port

from heartml.core import paths
from heartml.inference import output, predict
from heartml.models.fitted_model import Model
from heartml.registry import tracking, versions
from heartml.server import app as application
from heartml.server import mlflow_format, run, uploads
from heartml.server.app import Limits
from heartml.server.served import Holder

TASK = "simulated-murmur"
ROOT = Path(__file__).parents[2]


def register(key: str, model: Model) -> None:
    """Register a model and make it the champion."""
    shutil.rmtree(paths.model(TASK), ignore_errors=True)
    many_heads.save(paths.model(TASK), model)
    client = tracking.connect()
    before = versions.champion(client, TASK)
    registered_model.register(client, TASK, key, before.number if before else None)


@pytest.fixture(scope="module")
def model() -> Model:
    return many_heads.fit(farthest=1e6, networks=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, empty_store: Path, model: Model) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("serving")
    with registered_model.project(root, empty_store):
        register("first", model)
        Path("sounds").mkdir()
        for name, seed in (("2530_AV", 3), ("2530_MV", 5), ("other", 4)):
            one = tiny_models.draw_sound(("murmur", "noise", "clean")[seed % 3], seed, 2.0)
            soundfile.write(f"sounds/{name}.wav", one.pcm, one.sample_rate_hz)
        yield root


@pytest.fixture(scope="module")
def holder(project: Path) -> Holder:
    return Holder(None, TASK, with_page=False)


@pytest.fixture
def client(holder: Holder) -> Iterator[TestClient]:
    with TestClient(application.make(holder, Limits(2), refresh_s=0)) as found:
        yield found


def sent(*names: str) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("file", (name, Path("sounds", name).read_bytes(), "audio/wav")) for name in names]


def test_several_files_are_answered_as_predict_answers_them(client: TestClient) -> None:
    answer = client.post("/predict", files=sent("2530_AV.wav", "2530_MV.wav", "other.wav"))
    own = output.as_values(predict.run([Path("sounds")], None, TASK))
    assert answer.status_code == 200
    for one, two in zip(answer.json()["answers"], own["answers"], strict=True):
        assert one["unit_id"] in (two["unit_id"], Path(two["unit_id"]).name)
        assert (one["decision"], one["reasons"]) == (two["decision"], two["reasons"])
        np.testing.assert_allclose(list(one["calibrated"].values()), list(two["calibrated"].values()), atol=1e-4)
        assert [Path(r["path"]).name for r in two["recordings"]] == [r["path"] for r in one["recordings"]]


def test_the_bytes_of_one_file_are_enough(client: TestClient) -> None:
    body = Path("sounds/other.wav").read_bytes()
    answer = client.post("/predict?name=other.wav&location=AV", content=body, headers={"Content-Type": "audio/wav"})
    alone = client.post("/predict", files=sent("other.wav")).json()["answers"][0]
    found = answer.json()["answers"][0]
    assert (found["unit_id"], found["calibrated"]) == ("other.wav", alone["calibrated"])
    assert found["recordings"][0]["location"] == "AV"


def test_patient_and_location_join_files_and_are_checked(client: TestClient) -> None:
    given = {"patient_id": ["77"], "location": ["AV", "MV"]}
    [found] = client.post("/predict", files=sent("2530_AV.wav", "other.wav"), data=given).json()["answers"]
    assert found["unit_id"] == "77" and [one["location"] for one in found["recordings"]] == ["AV", "MV"]
    for data, words in (({"location": "left"}, "location: 'left' is none of"),
                        ({"patient_id": "x" * 500}, "no name of up to 200"),
                        ({"patient_id": ["1", "2", "3"]}, "3 values of `patient_id` for 1 files"),
                        ({"path": "/etc/passwd"}, "unknown field `path`"),
                        ({"url": "http://x"}, "paths and addresses")):
        answer = client.post("/predict", files=sent("other.wav"), data=data)
        assert answer.status_code == 400 and words in answer.json()["error"]


@pytest.mark.parametrize(("name", "words"), [
    ("../other.wav", "no plain file name"), ("..", "no plain file name"), (".hidden", "no plain file name"),
    ("a" * 300, "no plain file name"), ("a/b.wav", "no plain file name"), ("", "no plain file name"),
    ("\u00e9" * 150, "no plain file name"), ("a\0b", "no plain file name")])
def test_a_name_is_never_a_path(client: TestClient, name: str, words: str) -> None:
    answer = client.post("/predict", params={"name": name}, content=b"x", headers={"Content-Type": "audio/wav"})
    assert answer.status_code == 400 and words in answer.json()["error"]


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.CSV", "x.xlsx"])
def test_a_table_is_no_way_to_a_file_of_this_machine(client: TestClient, name: str) -> None:
    body = f"path\n{Path('sounds/other.wav').resolve()}\n{Path('sounds/2530_AV.wav').resolve()}\n".encode()
    for answer in (client.post("/predict", files=[("file", (name, body, "text/csv"))]),
                   client.post("/predict", params={"name": name}, content=body)):
        assert answer.status_code == 422 and answer.json()["answers"] == []
        assert answer.json()["not_scored"][0]["path"] == name
    sound = client.post("/predict", params={"name": name}, content=Path("sounds/other.wav").read_bytes())
    assert sound.status_code == 200 and sound.json()["answers"][0]["unit_id"] == name


def test_a_form_that_is_cut_is_refused(client: TestClient) -> None:
    request = client.build_request("POST", "/predict", files=sent("2530_AV.wav", "2530_MV.wav"))
    whole = request.read()
    kind = {"Content-Type": request.headers["content-type"]}
    assert client.post("/predict", content=whole, headers=kind).status_code == 200
    for left in (len(whole) - 4, len(whole) - 3000, len(whole) // 3):
        answer = client.post("/predict", content=whole[:left], headers=kind)
        assert answer.status_code == 400, left
    upper = {"Content-Type": kind["Content-Type"].replace("multipart/form-data", "Multipart/Form-Data")}
    assert client.post("/predict", content=whole, headers=upper).status_code == 200


def test_a_body_that_does_not_arrive_gives_its_place_back(holder: Holder) -> None:
    """A real server and a client that sends one byte: its place is free again after the time for bodies."""
    limits = Limits(1, waiting=0, body_seconds=0.5)
    server = uvicorn.Server(uvicorn.Config(application.make(holder, limits, refresh_s=0), port=0, log_level="error"))
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nx")
            assert b" 504 " in slow.recv(1000)
        sound = urllib.request.Request(f"http://127.0.0.1:{port}/predict", Path("sounds/other.wav").read_bytes())
        with urllib.request.urlopen(sound, timeout=30) as answer:
            assert answer.status == 200
    finally:
        server.should_exit = True
        thread.join(30)


def test_what_is_no_sound_has_its_reason_and_its_own_status(client: TestClient) -> None:
    answer = client.post("/predict", files=[("file", ("notes.wav", b"hello", "audio/wav"))])
    assert answer.status_code == 422 and "no file can be scored" in answer.json()["error"]
    assert answer.json()["not_scored"][0]["error"]["reason"] == "not_audio"
    mixed = client.post("/predict", files=[*sent("other.wav"), ("file", ("notes.wav", b"hello", "audio/wav"))])
    assert mixed.status_code == 200 and len(mixed.json()["answers"]) == len(mixed.json()["not_scored"]) == 1


def test_empty_doubled_and_too_many_files_are_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the body is empty" in client.post("/predict").json()["error"]
    assert "two files have this name" in client.post("/predict", files=sent("other.wav", "other.wav")).json()["error"]
    text = client.post("/predict", data={"file": "/etc/passwd"}, files={"patient_id": (None, "7")})
    assert text.status_code == 400 and "a text, not a file" in text.json()["error"]
    monkeypatch.setattr(uploads, "MAX_FILES", 1)
    assert client.post("/predict", files=sent("other.wav", "2530_AV.wav")).status_code == 400


def test_a_body_that_is_too_large_is_not_read(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_BYTES", 1000)
    assert client.post("/predict", files=sent("other.wav")).status_code == 413
    pieces = (b"x" * 400 for _ in range(10))          # no length is stated
    assert client.post("/predict?name=a.wav", content=pieces).status_code == 413


def test_what_comes_while_too_many_wait_is_told_to_come_again(holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, inside = threading.Event(), threading.Event()
    answer = uploads.answer

    def slowly(*values):
        inside.set()
        assert go_on.wait(60)
        return answer(*values)

    monkeypatch.setattr(uploads, "answer", slowly)
    with TestClient(application.make(holder, Limits(1, waiting=0), refresh_s=0)) as client:
        first: list[int] = []

        def send() -> None:
            first.append(client.post("/predict", files=sent("other.wav")).status_code)

        thread = threading.Thread(target=send)
        thread.start()
        assert inside.wait(60)
        refused = client.post("/predict", files=sent("2530_AV.wav"))
        assert refused.status_code == 503 and refused.headers["retry-after"] == "2"
        assert client.get("/health").json() == {"status": "ok", "requests": 1}
        go_on.set()
        thread.join(60)
        assert first == [200]
        assert client.post("/predict", files=sent("2530_AV.wav")).status_code == 200


def test_what_takes_too_long_ends_with_a_word(holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "answer", lambda *_: time.sleep(0.5))
    with TestClient(application.make(holder, Limits(1, seconds=0.05), refresh_s=0)) as client:
        assert client.post("/predict", files=sent("other.wav")).status_code == 504


def test_a_fault_of_ours_shows_no_traceback(holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "answer", lambda *_: 1 / 0)
    with TestClient(application.make(holder, Limits(1), refresh_s=0), raise_server_exceptions=False) as client:
        answer = client.post("/predict", files=sent("other.wav"))
        assert answer.status_code == 500 and "ZeroDivisionError" in answer.json()["error"]
        assert "Traceback" not in answer.text


def test_invocations_answer_as_mlflows_server(client: TestClient, model: Model) -> None:
    one = tiny_models.draw_sound("murmur", 3, 2.0).floats.astype(float).round(5)
    own = model.predict_audio([(one.astype(np.float32), 4000)], ["a"])
    for body in ({"dataframe_records": [{"samples": one.tolist(), "sample_rate_hz": 4000, "unit_id": "a"}]},
                 {"dataframe_split": {"columns": ["samples", "sample_rate_hz"], "data": [[one.tolist(), 4000]]}},
                 {"instances": [{"samples": one.tolist(), "sample_rate_hz": 4000}]},
                 {"inputs": {"samples": [one.tolist()], "sample_rate_hz": [4000]}}):
        [found] = client.post("/invocations", json=body).json()["predictions"]
        assert found["leaning"] == own.top_classes[0]
        assert found["confidence"] == pytest.approx(own.confidence[0], abs=1e-9)
    doubled = {"dataframe_split": {"columns": ["samples", "sample_rate_hz", "x", "x"], "data": [[[0.1], 4000, 1, 2]]}}
    both = {"instances": [], "inputs": {}}
    uneven = {"inputs": {"samples": [[0.1]], "sample_rate_hz": [1, 2]}}
    words = {"dataframe_records": [{"samples": "x", "sample_rate_hz": 4000}]}
    for wrong in (doubled, both, uneven, {"inputs": []}, words, [1]):
        assert client.post("/invocations", json=wrong).status_code == 400
    assert client.post("/invocations", content=b"{").status_code == 400


def test_the_server_says_what_it_is(client: TestClient, holder: Holder) -> None:
    assert client.get("/version").json()["model"] == f"{TASK} version 1, the champion"
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {"/predict", "/invocations", "/health", "/version"}
    sent = described["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]["schema"]["oneOf"]
    assert [one["required"][0] for one in sent] == ["dataframe_split", "dataframe_records", "instances", "inputs"]
    docs = client.get("/docs")
    assert docs.status_code == 200 and "//" not in docs.text
    assert client.head("/health").status_code == 200
    wrong = client.get("/predict")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert client.get("/").status_code == 404 and "--no-page" in client.get("/").json()["error"]


def test_a_server_of_this_machine_answers_to_no_other_name(holder: Holder) -> None:
    app = application.make(holder, Limits(1), refresh_s=0, hosts=("127.0.0.1",))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        assert client.get("/health").status_code == 200
        assert client.get("/health", headers={"Host": "evil.example"}).status_code == 400


def test_the_page_is_served_and_nothing_beside_it(holder: Holder, tmp_path: Path) -> None:
    from dataclasses import replace

    site = tmp_path / "page"
    site.mkdir()
    (site / "index.html").write_text("the page")
    (tmp_path / "secret").write_text("secret")
    (site / "link").symlink_to(tmp_path / "secret")
    old, holder.served = holder.served, replace(holder.served, page=site)
    try:
        with TestClient(application.make(holder, Limits(1), refresh_s=0)) as client:
            assert client.get("/").text == "the page"
            for path in ("/" + "a" * 5000, "/a%00b", "/..%2fsecret", "/%2e%2e/secret", "/link", "/ort/"):
                assert client.get(path).status_code == 404
    finally:
        holder.served = old


def test_another_champion_answers_soon_and_a_fault_leaves_the_old_one(project: Path, model: Model) -> None:
    from dataclasses import replace

    said: list[str] = []
    holder = Holder(None, TASK, with_page=False)
    pinned = Holder(f"{TASK}/1", None, with_page=False)
    holder.refresh(said.append)
    assert said == []
    register("second", replace(model, refer_below=0.99))
    broken = Path(".heartml/mlflow.db").read_bytes()
    Path(".heartml/mlflow.db").write_bytes(b"no database")
    holder.refresh(said.append)
    Path(".heartml/mlflow.db").write_bytes(broken)
    assert holder.served.located.version == "1" and "goes on with" in said[0]
    holder.refresh(said.append)
    pinned.refresh(said.append)
    assert (holder.served.located.version, pinned.served.located.version) == ("2", "1")
    assert said[1:] == [f"now answers with {TASK} version 2, the champion"]
    mlflow_format._model.cache_clear()


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(run.CannotListen, match="--port"):
        run.run(None, None, run.Place("127.0.0.1", taken.getsockname()[1]), None, 1, with_page=False)


def test_an_empty_host_is_no_address() -> None:
    with pytest.raises(run.CannotListen, match="--host is empty"):
        run.run(None, None, run.Place("", 0), None, 1, with_page=False)


def test_a_real_process_serves_and_ends_with_a_signal(project: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "heartml", "serve", f"{TASK}/1", "--port", str(port), "--no-page"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr
            said = [server.stderr.readline() for _ in range(3)]
            assert f"answers with {TASK} version 1" in said[0], said
            for _ in range(100):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                        assert json.load(answer)["status"] == "ok"
                    break
                except OSError:
                    time.sleep(0.1)
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(30) in (0, -signal.SIGTERM)
