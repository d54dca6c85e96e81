"""Where the tracking store may be, and what a wrong address is answered with."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from heartml.core.system import health, machine_errors
from heartml.registry import mlflow_store

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


@pytest.mark.parametrize("address", ["sqlite:///mlflow.db", "sqlite:////there/mlflow.db"])
def test_a_file_needs_no_service(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mlflow_store.VARIABLE, address)
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


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://127.0.0.1:port", "http://", "nothing"])
def test_nothing_at_all_is_told_too(address: str) -> None:
    with pytest.raises(health.ServerNotFound):
        health.check(address, b"OK")


def test_a_refused_connection_is_one_that_another_try_can_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mlflow_store.VARIABLE, "http://127.0.0.1:1")
    with pytest.raises(mlflow_store.StoreError) as refused:
        mlflow_store.check()
    assert machine_errors.is_lost_connection(refused.value)
