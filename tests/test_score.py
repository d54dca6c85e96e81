"""Scoring for a schedule: each recording once for each model, a killed run goes on, one whole table in the end."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import tiny

from heartml import predict
from heartml.audio import write_flac
from heartml.core import files, paths
from heartml.predict import batch

TASK = "simulated-murmur"
ROOT = Path(__file__).parents[1]


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: dict[str, Path]) -> Path:
    """A working folder with a model and `incoming/`: three patients, and a file that is no sound."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(batch, "AT_ONCE", 1)   # a patient a block
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(fitted[TASK], paths.model(TASK))
    said = {"2530_AV": "murmur", "2530_MV": "murmur", "9979_TV": "clean", "9980_PV": "clean"}
    for seed, (name, kind) in enumerate(said.items()):
        write_flac(Path(f"incoming/{name}.flac"), tiny.sound(kind, 700 + seed))
    Path("incoming/notes.wav").write_text("no sound")
    return tmp_path


def score(to: str = "scores.parquet") -> tuple[pd.DataFrame, int]:
    """The table, and how many blocks were to do."""
    work = batch.plan(Path("incoming"), None, None)
    with batch.alone(work):
        done = sum(batch.score(block, work.located) for block in work.blocks)
        return batch.finish(work, Path(to)), done


def test_the_table_says_what_predict_says(ward: Path) -> None:
    table, _ = score()
    said = {a.unit_id: a for a in predict.run([Path("incoming")], None, None).answers}
    answered = table[table["fault"].isna()].set_index("unit_id")
    assert set(answered.index) == set(said)
    for unit, row in answered.iterrows():
        assert row["decision"] == said[unit].decision
        assert row["confidence"] == pytest.approx(said[unit].confidence)
        assert row["p_Present"] == pytest.approx(said[unit].probabilities["Present"])
    assert answered.loc["2530", "recordings"] == 2
    [fault] = table[table["fault"].notna()].to_dict("records")
    assert fault["unit_id"] == "incoming/notes.wav"
    assert pd.isna(fault["decision"])
    assert pd.read_parquet("scores.parquet").equals(table)


def test_a_run_that_ended_early_goes_on_and_scores_nothing_twice(ward: Path) -> None:
    whole, blocks = score("undisturbed.parquet")
    work = batch.plan(Path("incoming"), None, None)
    assert len(work.blocks) == blocks == 4
    for block in work.blocks[:2]:
        assert batch.score(block, work.located)
    table, done = score()
    assert done == 2
    assert files.sha256_file(Path("scores.parquet")) == files.sha256_file(Path("undisturbed.parquet"))
    assert table.equals(whole)
    assert not work.folder.exists()


def test_a_changed_recording_is_scored_again(ward: Path) -> None:
    work = batch.plan(Path("incoming"), None, None)
    for block in work.blocks:
        batch.score(block, work.located)
    write_flac(Path("incoming/9979_TV.flac"), tiny.sound("murmur", 5))
    assert score()[1] == 1


def test_another_model_scores_everything_again(ward: Path) -> None:
    work = batch.plan(Path("incoming"), None, None)
    for block in work.blocks:
        batch.score(block, work.located)
    (paths.model(TASK) / "NOTE").write_text("other bytes")
    assert score()[1] == 4


def test_the_flow_writes_the_table_and_says_how_much(ward: Path) -> None:
    code = ("from flows import server; server.start(); from pathlib import Path; from flows.score import score;"
            "print(score(Path('incoming'), Path('scores.parquet')))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert "{'units': 3, 'recordings that cannot be scored': 1}" in done.stdout, done.stderr
    assert len(pd.read_parquet("scores.parquet")) == 4
