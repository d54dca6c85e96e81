"""Where the tracking store may be, and what a wrong address is answered with."""

import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from heartml.core.system import health, machine_errors
from heartml.registry import mlflow_store, store_file, tracking

SAYS: dict[str, tuple[int, bytes]] = {"/well": (200, b"OK"), "/page": (200, b"<html>"), "/asks": (401, b""),
                                      "/gateway": (502, b"OK")}


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = SAYS.get(self.path.removesuffix("/health"), (404, b"OK"))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of a server that is well, or something else, depending on the path."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()


@pytest.mark.parametrize(("address", "words"), [
    ("localhost:5000", "did you mean http://localhost:5000?"),
    ("127.0.0.1:5000/api", "did you mean http://127.0.0.1:5000/api?"),
    ("mlruns", "sqlite:///FILE"), ("htp:/nonsense", "http(s)://HOST"), ("file:///mlruns", "sqlite:///FILE"),
    ("C:/mlruns", "sqlite:///FILE"), ("sqlite:mlflow.db", "sqlite:///FILE"), ("mysql://host/name", "postgresql"),
])
def test_what_is_no_address_of_a_store_is_refused_with_those_that_are(
    address: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mlflow_store.VARIABLE, address)
    with pytest.raises(mlflow_store.StoreError) as refused:
        mlflow_store.check()
    assert str(refused.value).startswith(f"{mlflow_store.VARIABLE}={address}: no address of a tracking store")
    assert words in str(refused.value)
    assert ("did you mean" in str(refused.value)) == words.startswith("did you mean")


@pytest.mark.parametrize("address", ["sqlite:///mlflow.db", "sqlite:///{}/not yet there/mlflow.db"])
def test_a_file_needs_no_service(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(mlflow_store.VARIABLE, address.format(tmp_path))
    mlflow_store.check()
    mlflow_store.check(create=False)


@pytest.mark.parametrize("variable", [mlflow_store.VARIABLE, mlflow_store.REGISTRY])
def test_a_mistyped_path_is_named_and_nothing_is_created(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sqlite3.connect("there.db").execute("create table experiments (x)")
    monkeypatch.setenv(mlflow_store.VARIABLE, "sqlite:///there.db")
    monkeypatch.setenv(variable, f"sqlite:///{tmp_path}/typo/mlflow.db")
    words = rf"{variable}=.*no such file.*unset {variable} .*`heartml retrain` begins a new one there"
    for ask in (tracking.connect_to_existing, mlflow_store.check_named_files):
        with pytest.raises(mlflow_store.StoreError, match=words):
            ask()
    assert [path.name for path in tmp_path.iterdir()] == ["there.db"]
    mlflow_store.check()
    assert (tmp_path / "typo" / "mlflow.db").exists(), "the way out works: a retraining begins a new one"


@pytest.mark.parametrize(("content", "words"), [
    (b"no database, but longer than its header", "file is not a database"), (None, "unable to open"),
    ("create table prices (x)", "a database of something else, with the table prices")])
def test_a_file_that_is_no_store_is_told_at_once(
    content: bytes | str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.db"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is None:
        file.mkdir()
    else:
        sqlite3.connect(file).execute(content)
    monkeypatch.setenv(mlflow_store.VARIABLE, f"sqlite:///{file}")
    whole = rf"no store in .*x\.db \(.*{words}.*Correct the path"
    for create in (True, False):
        with pytest.raises(mlflow_store.StoreError, match=whole) as told:
            mlflow_store.check(create=create)
        assert "begins a new one" not in str(told.value)


def test_a_store_that_another_process_has_locked_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_file, "_WAIT_S", 0)
    holder = sqlite3.connect(tmp_path / "x.db", isolation_level="EXCLUSIVE")
    holder.execute("create table prices (x)")
    holder.execute("begin exclusive")
    store_file.check(tmp_path / "x.db", create=False)
    holder.close()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a system without /proc")
def test_a_place_where_no_file_can_be_created_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mlflow_store.VARIABLE, "sqlite:////proc/x.db")
    with pytest.raises(mlflow_store.StoreError, match=r"no store in /proc/x\.db \(unable to open database file\)"):
        tracking.connect()


def test_a_folder_without_a_project_gets_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(mlflow_store.VARIABLE, raising=False)
    with pytest.raises(mlflow_store.StoreError, match=r"params\.yaml: not found, so this folder has no registry"):
        mlflow_store.check()
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv(mlflow_store.VARIABLE, f"sqlite:///{tmp_path}/elsewhere.db")
    mlflow_store.check()


@pytest.mark.parametrize("path", ["/well", "/well/", "/asks"])
def test_a_server_that_is_well_or_wants_to_know_who_asks_is_there(
    server: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mlflow_store.VARIABLE, f"{server}{path}")
    mlflow_store.check()


@pytest.mark.parametrize(("path", "words"), [
    ("", "404"), ("/page", "something else does"), ("/gateway", "502")])
def test_what_is_no_server_of_mlflow_is_not_taken_for_one(
    server: str, path: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mlflow_store.VARIABLE, f"{server}{path}")
    with pytest.raises(mlflow_store.StoreError, match=f"no MLflow server answers .*{words}"):
        mlflow_store.check()


@pytest.mark.parametrize("address", ["http://[::1", "http://127.0.0.1:70000"])
@pytest.mark.parametrize("variable", [mlflow_store.VARIABLE, mlflow_store.REGISTRY])
def test_an_address_that_nobody_can_read_is_told_in_a_line(
    variable: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mlflow_store.VARIABLE, f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv(variable, address)
    with pytest.raises(mlflow_store.StoreError, match=f"{variable}=.*no MLflow server answers"):
        mlflow_store.check()


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://127.0.0.1:port", "http://", "nothing"])
def test_nothing_at_all_is_told_too(address: str) -> None:
    with pytest.raises(health.ServerNotFound):
        health.check(address, b"OK")


@pytest.mark.parametrize(("address", "words"), [
    ("localhost:5000", "no address of a registry: did you mean http://localhost:5000?"),
    ("databricks-uc", "no address of a registry"), ("http://127.0.0.1:1", "no MLflow server answers")])
def test_the_address_of_the_registry_is_checked_as_that_of_the_runs(
    address: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mlflow_store.VARIABLE, f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv(mlflow_store.REGISTRY, address)
    with pytest.raises(mlflow_store.StoreError) as refused:
        mlflow_store.check()
    assert str(refused.value).startswith(f"{mlflow_store.REGISTRY}={address}: {words}")
    assert f"unset {mlflow_store.REGISTRY} to keep versions in the tracking store" in str(refused.value)


def test_the_password_of_the_registry_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mlflow_store.REGISTRY, "mysql://ada:secret@host/name")
    monkeypatch.setenv(mlflow_store.VARIABLE, f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(mlflow_store.StoreError, match=r"ada:\*\*\*@host"):
        mlflow_store.check()


def test_a_server_that_takes_the_call_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        with pytest.raises(health.ServerNotFound):
            health.check(f"http://127.0.0.1:{silent.getsockname()[1]}", b"OK")
        assert time.monotonic() - started < 2


def test_a_host_whose_name_is_looked_up_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(health, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ended.wait(20))
    started = time.monotonic()
    with pytest.raises(health.ServerNotFound, match="no reply within") as refused:
        health.check("http://far.example.org", b"OK")
    ended.set()
    assert time.monotonic() - started < 2
    assert machine_errors.is_lost_connection(refused.value)


def test_all_of_a_check_takes_no_more_than_five_seconds() -> None:
    assert health.TIMEOUT_S <= 5


def test_a_refused_connection_is_one_that_another_try_can_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mlflow_store.VARIABLE, "http://127.0.0.1:1")
    with pytest.raises(mlflow_store.StoreError) as refused:
        mlflow_store.check()
    assert machine_errors.is_lost_connection(refused.value)
