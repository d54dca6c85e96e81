"""Scoring for a schedule: each recording once for each model, a killed run goes on, one whole table in the end."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from support import tiny_models

from heartml.audio.sound_files import write_flac
from heartml.cli import cli
from heartml.core import paths
from heartml.core.system import files, hashing
from heartml.inference import batch, predict, prediction_cache
from heartml.inference.batch import ScoringSummary
from heartml.inference.prediction_cache import PredictionCache, PredictionCacheError
from heartml.registry import version_cautions

TASK = "simulated-murmur"
ROOT = Path(__file__).parents[2]
TABLE = Path("scores.parquet")


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: dict[str, Path]) -> Path:
    """A working folder with a model and `incoming/`: three patients, and a file that is no sound."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setattr(batch, "AT_ONCE", 1)   # a patient a block
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(fitted[TASK], paths.model(TASK))
    said = {"2530_AV": "murmur", "2530_MV": "murmur", "9979_TV": "clean", "9980_PV": "clean"}
    for seed, (name, kind) in enumerate(said.items()):
        write_flac(Path(f"incoming/{name}.flac"), tiny_models.draw_sound(kind, 700 + seed))
    Path("incoming/notes.wav").write_text("no sound")
    return tmp_path


def score(to: Path = TABLE) -> tuple[pd.DataFrame, ScoringSummary]:
    summary = batch.run(Path("incoming"), to, None, None)
    return pd.read_parquet(to), summary


def more(count: int) -> None:
    for seed in range(count):
        write_flac(Path(f"incoming/new_{seed}.flac"), tiny_models.draw_sound("clean", 900 + seed))


def test_the_table_says_what_predict_says(ward: Path) -> None:
    table, _ = score()
    said = {a.unit_id: a for a in predict.run([Path("incoming")], None, None).predictions}
    answered = table[table["fault"].isna()]
    assert set(answered["unit_id"]) == set(said)
    for row in answered.to_dict("records"):
        answer = said[row["unit_id"]]
        alone = next(h for h in answer.recordings if str(h.item.path) == row["path"])
        assert row["decision"] == answer.decision
        assert row["confidence"] == pytest.approx(answer.confidence)
        assert row["p_Present"] == pytest.approx(answer.probabilities["Present"])
        assert row["c_Unknown"] == pytest.approx(answer.calibrated["Unknown"])
        assert row["r_Absent"] == pytest.approx(alone.probabilities["Absent"])
        assert row["description"] == (answer.description.phrase_with_confidence if answer.description else "")


def test_every_file_is_a_row_and_a_bad_one_says_why(ward: Path) -> None:
    table, summary = score()
    assert table["path"].tolist() == sorted(map(str, Path("incoming").iterdir()))
    [bad] = table[table["fault"].notna()].to_dict("records")
    assert (bad["path"], bad["fault"]) == ("incoming/notes.wav", "not_audio")
    assert pd.isna(bad["decision"])
    assert pd.isna(bad["recording_id"])
    assert summary == ScoringSummary("scores.parquet", summary.model, files=5, faults=1, units=3, scored=3, known=0,
                                     cautions=(version_cautions.unregistered(paths.model(TASK)),))
    assert set(table["cautions"]) == set(files.read_json(Path("scores.run.json"))["cautions"]) == {*summary.cautions}
    whole = table[table["unit_id"] == "2530"]
    assert whole["unit_recordings"].tolist() == [2, 2]


def test_the_table_says_which_model_and_no_time_of_day(ward: Path) -> None:
    score()
    about = json.loads(pq.read_schema(TABLE).metadata[b"heartml"])
    assert about["task"] == TASK
    assert about["classes"] == ["Present", "Unknown", "Absent"]
    table = pd.read_parquet(TABLE)
    assert set(table["model_sha256"]) == {about["model_sha256"]}
    run = files.read_json(Path("scores.run.json"))
    assert run["table_sha256"] == hashing.sha256_file(TABLE)
    assert run["started"] <= run["ended"]


def test_five_new_files_are_five_to_score(ward: Path) -> None:
    score()
    more(5)
    table, summary = score()
    assert (summary.scored, summary.known, len(table)) == (5, 3, 10)
    assert score(Path("again.parquet"))[1].scored == 0
    assert TABLE.read_bytes() == Path("again.parquet").read_bytes()


def test_a_recording_under_two_names_is_scored_once_and_stands_there_twice(ward: Path) -> None:
    shutil.copy("incoming/9979_TV.flac", "incoming/copy.flac")
    table, summary = score()
    assert summary.units == 4
    assert summary.scored == 3
    twice = table[table["path"].isin(["incoming/9979_TV.flac", "incoming/copy.flac"])]
    assert twice["recording_id"].nunique() == 1
    assert twice["answer_key"].nunique() == 1
    assert twice["c_Absent"].nunique() == 1
    assert twice["unit_id"].nunique() == 2


def test_a_patient_with_one_more_recording_is_another_case(ward: Path) -> None:
    before, _ = score()
    write_flac(Path("incoming/2530_PV.flac"), tiny_models.draw_sound("clean", 5))
    after, summary = score()
    assert summary.scored == 1
    own = [table.loc[table["unit_id"] == "2530", "confidence"].iloc[0] for table in (before, after)]
    assert own[0] != own[1]


def test_a_changed_recording_is_scored_again(ward: Path) -> None:
    score()
    write_flac(Path("incoming/9979_TV.flac"), tiny_models.draw_sound("murmur", 5))
    assert score()[1].scored == 1


def test_another_model_scores_everything_again(ward: Path) -> None:
    score()
    (paths.model(TASK) / "NOTE").write_text("other bytes")
    assert score()[1].scored == 3


def test_neighbours_do_not_show_in_an_answer(ward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more(5)
    score()
    shutil.rmtree(".heartml")
    monkeypatch.setattr(batch, "AT_ONCE", 64)
    score(Path("one block.parquet"))
    columns = [c for c in pd.read_parquet(TABLE) if c != "path"]
    assert pd.read_parquet(TABLE)[columns].equals(pd.read_parquet("one block.parquet")[columns])


def test_a_half_table_of_a_killed_run_is_swept(ward: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, living = Path(f".scores.parquet.{ended.pid}.tmp"), Path(f".scores.parquet.{os.getppid()}.tmp")
    left.write_text("half")
    living.write_text("somebody's")
    score()
    assert not left.exists()
    assert living.exists()


def child(act: Callable[[], object]) -> int:
    """Run `act` in a process of its own that has its imports already; returns its number."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            act()
            os._exit(0)
        os._exit(1)
    return pid


def dying(act: Callable[..., Any], at: int) -> Callable[..., Any]:
    """`act`, whose process is killed as soon as it was done `at` times."""
    calls = itertools.count(1)

    def wrapped(*args: Any) -> Any:
        found = act(*args)
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    return wrapped


@pytest.mark.parametrize(("place", "at"), [("inside", 1), ("inside", 2), ("inside", 3), ("boundary", 1),
                                           ("boundary", 2), ("boundary", 3), ("boundary", 4)])
def test_killed_anywhere_and_run_again_gives_the_undisturbed_bytes(ward: Path, place: str, at: int) -> None:
    def killed() -> None:
        if place == "inside":
            predict.predict_units = dying(predict.predict_units, at)
        else:
            PredictionCache.add = dying(PredictionCache.add, at)  # type: ignore[method-assign]
        score()

    assert os.waitstatus_to_exitcode(os.waitpid(child(killed), 0)[1]) == -signal.SIGKILL
    assert not TABLE.exists()
    _, summary = score()
    kept = min(3, at - (place == "inside"))      # the fourth block is the file that is no sound
    assert (summary.scored, summary.known) == (3 - kept, kept)
    shutil.rmtree(".heartml")
    score(Path("undisturbed.parquet"))
    assert TABLE.read_bytes() == Path("undisturbed.parquet").read_bytes()
    assert not list(Path().glob(".*.tmp"))


def test_a_second_run_with_the_same_model_waits(ward: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def second_run() -> None:
        while not Path("held").exists():      # forked before the lock is taken: a lock is inherited
            time.sleep(0.02)
        score(Path("second.parquet"))

    work = batch.plan(Path("incoming"), None, None)
    second = child(second_run)
    with batch.locked(work):
        Path("held").touch()
        deadline, said = time.monotonic() + 60, ""
        while "waiting for another run with the same model" not in said and time.monotonic() < deadline:
            time.sleep(0.05)
            said += capfd.readouterr().err
        assert "waiting for another run with the same model" in said
        done = [batch.score_block(work, number) for number in range(len(work.blocks))]
        assert not Path("second.parquet").exists()
        batch.write(work, TABLE, done, Path("incoming"))
    assert os.waitpid(second, 0)[1] == 0
    assert TABLE.read_bytes() == Path("second.parquet").read_bytes()
    assert files.read_json(Path("second.run.json"))["scored"] == 0


def test_a_broken_ledger_says_so_and_how_to_go_on(ward: Path) -> None:
    work = batch.plan(Path("incoming"), None, None)
    work.cache_file.parent.mkdir(parents=True)
    work.cache_file.write_bytes(b"no database" * 100)
    with pytest.raises(PredictionCacheError, match=r"scores/.*Remove it: everything is scored again"):
        batch.score_block(work, 0)


def test_a_ledger_never_changes_what_it_has_said(tmp_path: Path) -> None:
    with PredictionCache.open(tmp_path / "a.sqlite") as kept:
        kept.add(prediction_cache.NewPredictions(units={"k": ({"confidence": 0.5}, "now")}))
        kept.add(prediction_cache.NewPredictions(units={"k": ({"confidence": 0.9}, "later")}))
        assert kept.prediction("k") == {"confidence": 0.5}


def test_the_command_scores_without_a_server(ward: Path) -> None:
    done = CliRunner().invoke(cli, ["score", "incoming", "--to", "out.parquet", "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["scored"] == 3
    assert not (ward / "prefect").exists()
    again = CliRunner().invoke(cli, ["score", "incoming", "--to", "out.parquet"])
    assert "5 files, 3 units (0 scored now, 3 known from before), 0 referred to a human, 1 files that" in again.stdout


def test_the_flow_writes_the_bytes_of_the_command(ward: Path, empty_history: Path) -> None:
    Path("prefect").mkdir()
    shutil.copy(empty_history, "prefect")
    code = ("from flows.support import private_server as server; server.start(); from pathlib import Path\n"
            "from flows.score import score;"
            "print(score(Path('incoming'), Path('flow.parquet')).counts)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert "{'files': 5, 'faults': 1, 'units': 3, 'scored': 3, 'known': 0, 'referred': 0}" in done.stdout, done.stderr
    score()
    whole = [pd.read_parquet(path) for path in (Path("flow.parquet"), TABLE)]
    assert whole[0].equals(whole[1])
