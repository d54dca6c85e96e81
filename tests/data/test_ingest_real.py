"""The real recordings, by the faults that they have: PASCAL and the development part of CirCor."""

import json
from pathlib import Path

import pandas as pd
import pytest
from support import publisher_files
from support.ingested_data import assert_data_is_whole, data_checksums
from support.publisher_files import Child
from support.workspaces import Workspace

from heartml.audio import quality, sound_files

pytestmark = pytest.mark.timeout(600)


# The real recordings, by the faults that they have


def table_of(project: Workspace, name: str = "recordings") -> pd.DataFrame:
    return pd.read_parquet(project / "data" / f"{name}.parquet")


@pytest.mark.real
def test_real_pascal_two_sounds_under_two_labels_are_refused_on_both_sides(ingested_pascal: Workspace) -> None:
    refused = table_of(ingested_pascal, "quarantine").set_index("source_file")
    doubted = refused[refused["reason"] == "contradiction"]
    assert set(doubted.index) == {
        "set_a/murmur__201104021355.wav", "set_a/extrahls__201104021355.wav",
        "set_a/normal__201106141148.wav", "set_a/murmur__201106141148.wav",
    }
    assert "correlation 1.000" in doubted.loc["set_a/murmur__201104021355.wav", "detail"]
    assert "labelled normal" in doubted.loc["set_a/murmur__201106141148.wav", "detail"]


@pytest.mark.real
def test_real_pascal_every_file_is_a_recording_or_refused(ingested_pascal: Workspace) -> None:
    table, refused = table_of(ingested_pascal), table_of(ingested_pascal, "quarantine")
    assert len(table) + len(refused) == 832
    assert refused["reason"].value_counts().to_dict() == {"contradiction": 4, "silent": 1}
    assert table["label_sound"].notna().sum() == 581
    assert_data_is_whole(ingested_pascal.root)


@pytest.mark.real
def test_real_pascal_samples_are_the_publishers(ingested_pascal: Workspace, real_pascal: Path) -> None:
    pairs = (line.split() for line in (real_pascal / "PCM_SHA256SUMS.txt").read_text().splitlines())
    sums = {name: digest for digest, name in pairs}
    table = table_of(ingested_pascal)
    assert all(sums[file] == i for file, i in zip(table["source_file"], table["recording_id"], strict=True))


@pytest.mark.real
def test_real_pascal_ids_101_103_and_146_are_one_group(ingested_pascal: Workspace) -> None:
    table = table_of(ingested_pascal)
    one = table[table["patient_id"].isin(["pascal-101", "pascal-103", "pascal-146"])]
    assert set(one["group_id"]) == {"pascal-101"}
    assert set(table.loc[table["group_id"] == "pascal-101", "patient_id"]) == set(one["patient_id"])
    others = table.dropna(subset=["patient_id"]).drop(one.index)
    assert (others["group_id"] == others["patient_id"]).all()


@pytest.mark.real
def test_real_pascal_set_a_is_grouped_by_day(ingested_pascal: Workspace) -> None:
    table = table_of(ingested_pascal)
    days = table.loc[table["source"] == "set_a", ["source_file", "group_id"]]
    stamps = days["source_file"].str.extract(r"__(\d{8})")[0]
    assert days.groupby(stamps)["group_id"].nunique().max() == 1
    session = days[days["source_file"].str.contains("__20110822")]
    assert session["group_id"].nunique() == 1


@pytest.mark.real
def test_real_pascal_signal_faults_are_seen(ingested_pascal: Workspace, real_pascal: Path) -> None:
    table = table_of(ingested_pascal)
    measured = {
        file: quality.measure((s := sound_files.read(real_pascal / file)).floats, s.sample_rate_hz)
        for file in (p.relative_to(real_pascal).as_posix() for p in sorted(real_pascal.glob("set_?/*.wav")))
    }
    assert len(measured) == 832
    assert sum(q.seconds < 1.5 for q in measured.values()) == 34
    assert sum(q.clipped_share > 0.01 for q in measured.values()) == 11
    assert sum(q.peak < 0.02 for file, q in measured.items() if file.startswith("set_a")) == 6
    assert table["seconds"].min() > 0.5


@pytest.mark.real
def test_real_pascal_ingested_again_changes_nothing(ingested_pascal: Workspace, real_pascal: Path) -> None:
    before = data_checksums(ingested_pascal.root)
    told = json.loads(ingested_pascal.run("ingest", "pascal", real_pascal, "--json").stdout)
    assert (told["changed"], told["new"]) == (False, 0)
    assert data_checksums(ingested_pascal.root) == before


@pytest.mark.real
def test_real_circor_comes_in_whole_with_twins_in_one_group(ingested_circor: Workspace, real_circor: Path) -> None:
    table = table_of(ingested_circor)
    assert (len(table), table["patient_id"].nunique(), table["group_id"].nunique()) == (1393, 421, 392)
    assert table_of(ingested_circor, "quarantine").empty
    rows = pd.read_csv(real_circor / "training_data.csv").dropna(subset=["Additional ID"])
    groups = table.drop_duplicates("patient_id").set_index("patient_id")["group_id"]
    for a, b in zip(rows["Patient ID"], rows["Additional ID"].astype(int), strict=True):
        assert groups[f"circor-{a}"] == groups[f"circor-{b}"]
    assert (table["sample_rate_hz"] == 4000).all()
    assert table["seconds"].between(4.8, 80.4).all()


@pytest.mark.real
def test_real_circor_files_are_the_publishers(ingested_circor: Workspace, real_circor: Path) -> None:
    pairs = (line.split() for line in (real_circor / "SHA256SUMS.txt").read_text().splitlines())
    sums = {name: digest for digest, name in pairs}
    table = table_of(ingested_circor)
    assert all(sums[file] == i for file, i in zip(table["source_file"], table["source_sha256"], strict=True))


@pytest.mark.real
def test_real_circor_every_recording_has_heart_states_inside_it(ingested_circor: Workspace) -> None:
    table, states = table_of(ingested_circor).set_index("recording_id"), table_of(ingested_circor, "annotations")
    assert set(states["recording_id"]) == set(table.index)
    assert (states["end_s"] <= states["recording_id"].map(table["seconds"]) + 0.01).all()


@pytest.mark.real
def test_real_circor_one_more_child_costs_one_childs_work(
    ingested_circor: Workspace, real_circor: Path, tmp_path: Path
) -> None:
    project = ingested_circor.copy(tmp_path / "project")
    former = {p.relative_to(project.root): p.stat().st_ino for p in (project / "data").rglob("*.flac")}
    folder = publisher_files.circor(tmp_path / "one more", [Child(99, recordings={"AV": 1, "PV": 2})])
    told = json.loads(project.run("ingest", "circor", folder, "--json").stdout)
    assert (told["recordings"], told["new"], told["patients"]) == (1395, 2, 422)
    now = {p.relative_to(project.root): p.stat().st_ino for p in (project / "data").rglob("*.flac")}
    assert former.items() <= now.items()
