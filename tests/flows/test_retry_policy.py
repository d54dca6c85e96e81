"""A retry is for what another try can help: a lost connection, however deep it is wrapped, and a killed process."""

import logging
import socket
from pathlib import Path

import pytest
import sqlalchemy
from prefect.states import Failed

from flows.support import one_line_errors, retry_policy
from heartml.core.system.errors import HeartMLError
from heartml.data.datasets import load
from heartml.data.ingest.download import DownloadError, fetch
from heartml.registry import tracking


def caught(act) -> Exception:
    with pytest.raises(Exception) as error:
        act()
    return error.value


def refused() -> None:
    socket.create_connection(("127.0.0.1", 1), timeout=1)


def of_mlflow() -> None:
    import mlflow

    mlflow.MlflowClient("http://127.0.0.1:1").search_experiments()


def of_a_database() -> None:
    with sqlalchemy.create_engine("sqlite:////nowhere/at/all.db").connect():
        pass


def of_a_download(tmp_path: Path) -> None:
    fetch(load("circor"), tmp_path, "http://127.0.0.1:1", wait_s=0)


def test_a_lost_connection_is_seen_behind_what_wraps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    found = {act.__name__: caught(act) for act in (refused, of_mlflow, of_a_database)}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    found |= {"tracking": caught(tracking.connect), "download": caught(lambda: of_a_download(tmp_path))}
    named = {name: retry_policy.state_name(error) for name, error in found.items()}
    assert named == dict.fromkeys(found, retry_policy.AWAY)
    assert isinstance(found["tracking"], HeartMLError)


def test_an_answer_is_not_asked_for_again(tmp_path: Path) -> None:
    answers = [
        HeartMLError("recording 3f2a: 0 samples"), ZeroDivisionError(), OSError(28, "No space left on device"),
        caught((tmp_path / "missing").read_text), caught(lambda: fetch(load("pascal"), tmp_path)),
    ]
    assert isinstance(answers[-1], DownloadError)
    assert [retry_policy.state_name(error) for error in answers] == ["Failed"] * len(answers)


@pytest.mark.parametrize(("name", "helps"), [(retry_policy.KILLED, True), (retry_policy.AWAY, True), ("Failed", False),
                                             ("TimedOut", False), ("Crashed", False)])
def test_only_these_states_are_tried_again(name: str, helps: bool) -> None:
    assert retry_policy.can_help(None, None, Failed(name=name)) is helps


def test_a_returned_failure_leaves_no_traceback_and_a_fault_of_ours_keeps_its_own(
    caplog: pytest.LogCaptureFixture
) -> None:
    one_line_errors.without_traceback()
    log = logging.getLogger("prefect.flow_runs")
    ends = {"an answer": Failed(message="recording 3f2a: 0 samples"), "with data": Failed(message="x", data=["x"]),
            "a fault": None}
    for what, state in ends.items():
        try:
            state.result() if state else 1 / 0
        except Exception:
            log.addHandler(caplog.handler)
            log.error(what, exc_info=True)
            log.removeHandler(caplog.handler)
    assert {record.message for record in caplog.records} == {"a fault"}
