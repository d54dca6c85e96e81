"""Ingest: every file becomes a recording or a row of the quarantine; nothing is lost, whatever happens on the way."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from support import publisher_files
from support.ingested_data import assert_data_is_whole, data_checksums, quarantine_reasons, read_recordings
from support.publisher_files import RATE_HZ, beating_noise
from support.publisher_layouts import BUILDERS
from support.workspaces import Workspace

from heartml.core import paths, schema
from heartml.core.system import hashing
from heartml.core.system.errors import HeartMLError
from heartml.data import ingest
from heartml.data.datasets import DATASETS, open_dataset

pytestmark = pytest.mark.timeout(600)


# What comes out


@pytest.mark.parametrize("name", DATASETS)
def test_the_tables_follow_the_schema_and_carry_every_file(here: Workspace, tmp_path: Path, name: str) -> None:
    folder = BUILDERS[name](tmp_path / "publisher")
    outcome = ingest.run(name, folder)
    source, _ = open_dataset(name, folder)
    table, layout = read_recordings(), source.read(folder)
    pd.testing.assert_frame_equal(table, schema.conform(table, schema.RECORDINGS, "recordings"))
    assert set(table["source_file"]) | set(quarantine_reasons()) == set(layout.recordings["source_file"])
    assert table["recording_id"].is_unique
    assert set(table["dataset"]) == {name}
    assert set(table["licence"]) == {source.LICENCE}
    lengths_s = [soundfile.info(folder / file).duration for file in table["source_file"]]
    assert table["seconds"].tolist() == pytest.approx(lengths_s)
    for row in table.itertuples():
        assert row.source_sha256 == hashing.sha256_file(folder / row.source_file)
    assert_data_is_whole()
    assert outcome.recordings == outcome.new == len(table)
    # two mixtures of HLS-CMDS have one heart, in two files
    assert outcome.quarantined == ({"duplicate": 1} if name == "hls-cmds" else {})
    assert outcome.changed


def test_a_session_is_kept_where_the_publisher_tells_and_costs_no_column_elsewhere(
    here: Workspace, tmp_path: Path
) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "circor"))
    assert schema.SESSION not in read_recordings(), "data sets that know no session keep the bytes they had"
    ingest.run("pascal", publisher_files.pascal(tmp_path / "pascal"))
    sessions = read_recordings().set_index("source_file").groupby("dataset")[schema.SESSION]
    assert sessions.count().to_dict() == {"circor": 0, "pascal": (read_recordings()["dataset"] == "pascal").sum()}
    before = data_checksums()
    assert not ingest.run("circor", tmp_path / "circor").changed
    assert not ingest.run("pascal", tmp_path / "pascal").changed
    assert data_checksums() == before


def test_a_log_is_told_how_much_is_decoded_and_nothing_where_all_is_known(
    here: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = publisher_files.pascal(tmp_path / "pascal")
    ingest.run("pascal", folder)
    files_there = len(open_dataset("pascal", folder)[0].read(folder).recordings)
    assert f"{folder}: decoding {files_there} of {files_there} files\n" in capsys.readouterr().err
    ingest.run("pascal", folder)
    assert "decoding" not in capsys.readouterr().err


def test_the_recording_is_named_by_its_samples_and_kept_without_loss(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher"))
    table = read_recordings().set_index("source_file")
    pcm = beating_noise(1)
    name = table.loc["training_data/24_AV.wav", "recording_id"]
    assert name == hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest()
    kept, rate_hz = soundfile.read(paths.audio(name), dtype="int16")
    assert rate_hz == RATE_HZ
    np.testing.assert_array_equal(kept, pcm)


def test_twins_are_one_group_and_others_are_not(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher"))
    groups = read_recordings().groupby("patient_id")["group_id"].unique().map(list).to_dict()
    assert groups["circor-36"] == groups["circor-49"] == ["circor-36"]
    assert all(groups[name] == [name] for name in ("circor-24", "circor-29", "circor-50", "circor-61"))


def test_heart_states_belong_to_recordings(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher"))
    states = pd.read_parquet(paths.ANNOTATIONS)
    assert (states.groupby("recording_id")["state"].apply(list).map(tuple)
            == ("unannotated", "S1", "systole", "S2", "diastole")).all()
    assert set(states["recording_id"]) == set(read_recordings()["recording_id"])


def test_the_version_is_in_dvcs_cache_and_comes_back_from_there(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher"))
    before = data_checksums()
    shutil.rmtree("data")
    subprocess.run(["dvc", "checkout", "-q", "data.dvc"], check=True, env=here.environment)
    assert data_checksums() == before


def test_a_missing_folder_is_told_plainly(here: Workspace) -> None:
    with pytest.raises(HeartMLError, match="no such folder"):
        ingest.run("pascal", Path("nowhere"))
