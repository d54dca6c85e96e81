"""The demo corpus makes room for the first real collection, and for nothing else."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from support import publisher_files
from support.ingested_data import data_checksums
from support.workspaces import ROOT, Workspace

from heartml.cli import tables
from heartml.core import config, paths
from heartml.data import ingest
from heartml.data.ingest import demo, version


@pytest.fixture
def with_demo(here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project with a small corpus in the place of the demo's, as in a fresh clone."""
    ingest.run("simulated", publisher_files.circor(tmp_path / "demo"))
    monkeypatch.setattr(demo, "VERSION", yaml.safe_load(version.POINTER.read_text())["outs"][0]["md5"])
    return here


def datasets() -> set[str]:
    return set(pd.read_parquet(paths.RECORDINGS)["dataset"])


def test_the_committed_data_are_the_demo_corpus() -> None:
    assert demo.is_alone(ROOT / "data.dvc")


def test_the_first_real_collection_replaces_it_and_both_ways_out_work(
    with_demo: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real, number = publisher_files.pascal(tmp_path / "publisher"), len(pd.read_parquet(paths.RECORDINGS))
    before = data_checksums()
    tables.ingest(ingest.run("pascal", real, dry_run=True))
    assert f"The demo corpus ({number} simulated recordings) would leave data/" in capsys.readouterr().out
    assert data_checksums() == before
    outcome = ingest.run("pascal", real)
    tables.ingest(outcome)
    assert f"The demo corpus ({number} simulated recordings) has left data/" in capsys.readouterr().out
    assert datasets() == {"pascal"} and outcome.demo_left == number
    assert "label_murmur" not in pd.read_parquet(paths.RECORDINGS), "nothing of it is left, as in an empty project"
    assert set(pd.read_parquet(paths.QUARANTINE)["dataset"]) <= {"pascal"}
    assert ingest.run("pascal", real).demo_left == 0
    ingest.run("simulated", tmp_path / "demo")
    assert datasets() == {"pascal", "simulated"}, "`heartml ingest simulated` brings it back"


def test_it_stays_with_keep_tasks_and_beside_a_task_that_uses_it(with_demo: Workspace, tmp_path: Path) -> None:
    assert ingest.run("pascal", publisher_files.pascal(tmp_path / "publisher"), keep_tasks=True).demo_left == 0
    assert datasets() == {"pascal", "simulated"}


def test_simulated_recordings_of_a_user_stay(with_demo: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                             ) -> None:
    monkeypatch.setattr(demo, "VERSION", "0" * 32 + ".dir")
    assert ingest.run("pascal", publisher_files.pascal(tmp_path / "publisher")).demo_left == 0
    assert datasets() == {"pascal", "simulated"}
    assert config.load().tasks == ("pascal-sounds",)
