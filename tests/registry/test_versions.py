"""Registered versions: one for each content, one champion, and no state that a crash can leave undecided."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from heartml.registry import mlflow_store, tracking, versions
from heartml.registry.versions import CHALLENGER, CHAMPION, ChampionChanged, Version

NAME = "simulated-murmur"
PROMOTE = {"promote": True, "reason": "promoted: it is better", "criteria": [
    {"name": "floors", "passed": True, "value": 0.25, "required": 0.0, "words": "above the floors"}]}
REFUSE = {"promote": False, "reason": "refused: floors", "criteria": [
    {"name": "floors", "passed": False, "value": -0.1, "required": 0.0, "words": "below the floors"}]}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path):
    """A client of a store of this test's own, in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path(".heartml").mkdir()
    shutil.copyfile(empty_store, ".heartml/mlflow.db")
    return tracking.connect()


def register(client, key: str) -> Version:
    with tracking.run(client, NAME, key) as run_id:
        tracking.log_files(client, run_id, {"gate.json": "{}"})
    return versions.register(client, NAME, run_id=run_id, source=f"runs:/{run_id}/model", key=key)


def judged(client, key: str, verdict: dict, compared_with: str | None) -> Version:
    version = register(client, key)
    versions.record_verdict(client, version, verdict, compared_with)
    return version


def test_the_same_content_is_registered_once(client) -> None:
    first, again = register(client, "k1"), register(client, "k1")
    assert first.number == again.number == "1"
    assert register(client, "k2").number == "2"
    assert [v.number for v in versions.list_versions(client, NAME)] == ["1", "2"]


def test_a_task_on_several_data_sets_has_a_name_that_mlflow_takes(client) -> None:
    name = "circor+simulated-murmur"
    with tracking.run(client, name, name) as run_id:
        record = tracking.RunRecord({f"of/{name}": "1"}, {f"seconds/split/{name}": 2.0}, {name: "x"})
        tracking.log(client, run_id, record)
        tracking.log_files(client, run_id, {"gate.json": "{}"})
    assert client.get_run(run_id).data.metrics == {"seconds/split/circor.simulated-murmur": 2.0}
    version = versions.register(client, name, run_id=run_id, source=f"runs:/{run_id}/model", key="k1")
    assert [v.number for v in versions.list_versions(client, name)] == [version.number]


def test_a_new_version_is_a_challenger_until_it_is_judged(client) -> None:
    version = register(client, "k1")
    assert version.aliases == (CHALLENGER,)
    assert version.verdict is None
    assert not version.settled
    assert versions.champion(client, NAME) is None


def test_a_promoted_version_becomes_the_one_champion(client) -> None:
    for key, before in (("k1", None), ("k2", "1")):
        settled = versions.settle(client, judged(client, key, PROMOTE, before))
        assert settled.aliases == (CHAMPION,)
        assert settled.settled
    serving = versions.champion(client, NAME)
    assert serving
    assert serving.number == "2"


def test_a_refused_version_stays_challenger_and_says_why(client) -> None:
    versions.settle(client, judged(client, "k1", PROMOTE, None))
    settled = versions.settle(client, judged(client, "k2", REFUSE, "1"))
    assert settled.aliases == (CHALLENGER,)
    assert settled.tags["heartml.reason"] == "refused: floors"
    assert settled.tags["heartml.gate.floors"] == "failed (-0.1): below the floors"
    serving = versions.champion(client, NAME)
    assert serving
    assert serving.number == "1"


def test_of_two_promotions_that_were_compared_with_the_same_champion_only_one_wins(client) -> None:
    versions.settle(client, judged(client, "k0", PROMOTE, None))
    rivals = [judged(client, key, PROMOTE, "1") for key in ("k1", "k2")]

    def settle(version: Version) -> str:
        try:
            versions.settle(client, version)
        except ChampionChanged:
            return "lost"
        return "won"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(settle, rivals)) == ["lost", "won"]
    assert len([v for v in versions.list_versions(client, NAME) if CHAMPION in v.aliases]) == 1


def test_the_alias_of_a_challenger_is_taken_from_the_version_that_is_meant_alone(client) -> None:
    first, second = judged(client, "k1", REFUSE, None), register(client, "k2")     # which is challenger since
    versions.remove_challenger(client, first)
    assert versions.get(client, f"{NAME}@{CHALLENGER}").number == second.number
    versions.remove_challenger(client, second)
    assert not [v for v in versions.list_versions(client, NAME) if v.aliases]


def test_settling_twice_changes_nothing(client) -> None:
    version = judged(client, "k1", PROMOTE, None)
    assert versions.settle(client, version) == versions.settle(client, version)


def test_a_promotion_that_was_cut_short_after_the_alias_moved_is_only_marked(client) -> None:
    version = judged(client, "k1", PROMOTE, None)
    client.set_registered_model_alias(NAME, CHAMPION, version.number)   # as far as the killed run came
    settled = versions.settle(client, version)
    assert settled.settled
    assert settled.aliases == (CHAMPION,)


def test_a_verdict_that_no_longer_counts_is_forgotten(client) -> None:
    version = judged(client, "k1", PROMOTE, "7")
    with pytest.raises(ChampionChanged, match="compared with 7"):
        versions.settle(client, version)
    assert versions.forget_verdict(client, version).verdict is None


def test_a_killed_process_leaves_no_run_running_and_no_version_open(client) -> None:
    code = (
        "from heartml.registry import tracking, versions as registry; import os, signal\n"
        "client = tracking.connect()\n"
        f"with tracking.run(client, {NAME!r}, 'left') as run_id:\n"
        f"    registry.register(client, {NAME!r}, run_id=run_id, source=f'runs:/{{run_id}}/model', key='k1')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": str(root)})
    assert done.returncode == -signal.SIGKILL
    with tracking.run(client, NAME, "mine") as mine:
        [left] = versions.list_versions(client, NAME)
        assert tracking.close_stale_runs(client) == [left.run_id]
        assert client.get_run(left.run_id).info.status == "KILLED"
        assert client.get_run(mine).info.status == "RUNNING"
    versions.close_abandoned(client, NAME)
    [closed] = versions.list_versions(client, NAME)
    assert closed.settled
    assert closed.verdict == versions.ABANDONED


def test_a_run_that_fails_is_marked_failed(client) -> None:
    with pytest.raises(ZeroDivisionError), tracking.run(client, NAME, "failing") as run_id:
        raise ZeroDivisionError
    assert client.get_run(run_id).info.status == "FAILED"


def test_files_are_found_after_a_move(client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tracking.run(client, NAME, "moving") as run_id:
        tracking.log_files(client, run_id, {"folder/gate.json": "{}"})
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / ".heartml").rename(moved / ".heartml")
    monkeypatch.chdir(moved)
    there = tracking.connect()
    found = tracking.fetch(there, run_id, "folder/gate.json", tmp_path / "fetched")
    assert found.read_text() == "{}"
    with tracking.run(there, NAME, "later") as later:
        tracking.log_files(there, later, {"gate.json": "{}"})
    assert (moved / ".heartml/mlartifacts" / later / "artifacts/gate.json").exists()
    assert not (tmp_path / ".heartml").exists(), "nothing is written where the repository was"


def test_processes_that_start_at_once_make_one_sound_store(tmp_path: Path) -> None:
    code = "from heartml.registry import tracking; tracking.connect().search_experiments()"
    root = Path(__file__).parents[2]
    env = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | {"PYTHONPATH": str(root)}
    (tmp_path / "params.yaml").touch()       # a new store begins in a project only
    started = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
               for _ in range(3)]
    for process in started:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors


def test_an_error_of_the_database_is_raised_and_no_traceback_is_printed_beside_it(
    client, capfd: pytest.CaptureFixture[str]
) -> None:
    """MLflow logs each with its traceback; on a full disk that stood before the one line."""
    file = mlflow_store.sqlite_file()
    assert file and not versions.model_names(client)
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("DROP TABLE registered_models")
        database.commit()
    with pytest.raises(MlflowException, match="no such table"):
        client.create_registered_model("a")
    assert "Traceback" not in capfd.readouterr().err
