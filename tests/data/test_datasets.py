"""Data sets: one contract for the family, the publishers' quirks on small copies, and the real files' true state."""

from pathlib import Path

import pandas as pd
import pytest
from support import publisher_files
from support.publisher_files import Child
from support.publisher_layouts import BUILDERS

from heartml.core.schema import BREATH_EVENTS, QUARANTINE, STATES, UNANNOTATED, label_column
from heartml.core.tasks import TASKS
from heartml.data import datasets
from heartml.data.datasets import ANNOTATION_COLUMNS, DATASETS, FILE_COLUMNS, Layout, LayoutError, circor, pascal

MEMBERS = pytest.mark.parametrize("name", DATASETS)


def by_file(layout: Layout) -> pd.DataFrame:
    return layout.recordings.set_index("source_file")


def reasons(layout: Layout) -> dict[str, str]:
    return dict(zip(layout.refused["source_file"], layout.refused["reason"], strict=True))


# One contract for every member


@MEMBERS
def test_a_member_says_whose_it_is_and_what_it_is_for(name: str) -> None:
    member = datasets.load(name)
    assert name == member.NAME
    assert all((member.TITLE, member.CITATION, member.LICENCE, member.PUBLISHER, member.TASKS))
    for remote in member.REMOTES:
        assert remote.address.startswith("https://")
        assert remote.address.endswith("/")
        assert remote.listing
    for task in (TASKS[task] for task in member.TASKS):
        assert set(task.classes) <= set(member.LABELS[task.label])
        assert task.recording_label is None or task.recording_label in member.LABELS


@MEMBERS
def test_a_member_reads_its_publishers_layout(name: str, tmp_path: Path) -> None:
    member, folder = datasets.open_dataset(name, BUILDERS[name](tmp_path / name))
    layout = member.read(folder)
    table = layout.recordings
    assert list(table) == [*FILE_COLUMNS, *map(label_column, member.LABELS)]
    assert table["source_file"].is_unique
    assert all((folder / file).is_file() for file in table["source_file"])
    assert table[["source_file", "group", "source"]].notna().all(axis=None)
    assert table["group"].str.startswith(f"{name}-").all()
    assert table["patient_id"].dropna().str.startswith(f"{name}-").all()
    assert layout.refused.empty, layout.refused.to_string()
    for label, allowed in member.LABELS.items():
        assert set(table[label_column(label)].dropna()) <= set(allowed)
    assert list(layout.annotations) == list(ANNOTATION_COLUMNS)
    assert set(layout.annotations["source_file"]) <= set(table["source_file"])
    assert set(layout.annotations["state"]) <= {*STATES, UNANNOTATED, *BREATH_EVENTS}
    assert (layout.annotations["start_s"] <= layout.annotations["end_s"]).all()
    assert list(layout.refused) == list(QUARANTINE)


@MEMBERS
def test_reading_twice_gives_the_same(name: str, tmp_path: Path) -> None:
    folder = BUILDERS[name](tmp_path / name)
    first, second = datasets.load(name).read(folder), datasets.load(name).read(folder)
    pd.testing.assert_frame_equal(first.recordings, second.recordings)
    pd.testing.assert_frame_equal(first.annotations, second.annotations)
    assert first.same_person == second.same_person


@MEMBERS
def test_another_folder_is_refused_as_a_whole(name: str, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="Name the folder"):
        datasets.load(name).read(tmp_path)


def test_an_unknown_data_set_is_answered_with_those_there_are() -> None:
    with pytest.raises(LayoutError, match="simulated, circor, pascal"):
        datasets.load("pascall")


@pytest.mark.parametrize("name", ["../x.wav", "/etc/passwd", "a/../../b", "..\\x.wav"])
def test_names_that_lead_out_are_recognised(name: str) -> None:
    assert datasets.leaves_folder(name)


@pytest.mark.parametrize("name", ["set_a/x.wav", "x..wav", "training_data/24_AV.wav"])
def test_names_that_stay_inside_are_recognised(name: str) -> None:
    assert not datasets.leaves_folder(name)


# CirCor's quirks


def test_circor_names_locations_and_twins(tmp_path: Path) -> None:
    layout = circor.read(publisher_files.circor(tmp_path))
    table = by_file(layout)
    assert table.loc["training_data/50_MV_2.wav", "location"] == "MV"
    assert table.loc["training_data/49_Phc.wav", ["location", "source"]].tolist() == ["Phc", "CC2014"]
    assert layout.same_person == (frozenset({"circor-36", "circor-49"}),)


def test_circor_hears_a_murmur_only_where_it_is_heard(tmp_path: Path) -> None:
    here = by_file(circor.read(publisher_files.circor(tmp_path)))[["label_murmur", "label_murmur_here"]]
    assert here.loc["training_data/29_AV.wav"].tolist() == ["Present", "Present"]
    assert here.loc["training_data/29_TV.wav"].tolist() == ["Present", "Absent"]
    assert here.loc["training_data/61_MV.wav"].tolist() == ["Unknown", "Unknown"]
    assert here.loc["training_data/24_AV.wav"].tolist() == ["Absent", "Absent"]


def test_circor_reads_text_with_either_line_end(tmp_path: Path) -> None:
    before = circor.read(publisher_files.circor(tmp_path))
    for path in (path for kind in ("txt", "hea", "tsv", "csv") for path in tmp_path.rglob(f"*.{kind}")):
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    publisher_files.write_checksums(tmp_path)
    after = circor.read(tmp_path)
    assert after.refused.empty
    assert before.recordings["samples"].notna().all()
    pd.testing.assert_frame_equal(before.annotations, after.annotations)
    pd.testing.assert_frame_equal(before.recordings.drop(columns="file_sha256"),
                                  after.recordings.drop(columns="file_sha256"))


def test_circor_refuses_a_patient_whose_row_contradicts_the_patients_own_file(tmp_path: Path) -> None:
    publisher_files.circor(tmp_path)
    rows = [child.row() for child in publisher_files.children()]
    rows[0]["Murmur"] = "Present"
    publisher_files.circor_table(tmp_path, rows)
    layout = circor.read(tmp_path)
    assert reasons(layout) == {"training_data/24_AV.wav": "contradiction", "training_data/24_PV.wav": "contradiction"}
    assert "training_data.csv says Murmur Present, 24.txt says Absent" in layout.refused["detail"][0]


def test_circor_refuses_recordings_without_a_row(tmp_path: Path) -> None:
    publisher_files.circor(tmp_path)
    publisher_files.circor_table(tmp_path, [child.row() for child in publisher_files.children()[1:]])
    assert reasons(circor.read(tmp_path)) == {
        "training_data/24_AV.wav": "missing_row", "training_data/24_PV.wav": "missing_row",
    }


def test_circor_refuses_a_patients_file_that_was_edited(tmp_path: Path) -> None:
    path = publisher_files.circor(tmp_path) / "training_data" / "61.txt"
    path.write_bytes(path.read_bytes().replace(b"Female", b"Male"))
    assert reasons(circor.read(tmp_path)) == {"training_data/61_MV.wav": "checksum"}


def test_circor_refuses_states_that_were_edited_and_keeps_the_recording(tmp_path: Path) -> None:
    path = publisher_files.circor(tmp_path) / "training_data" / "61_MV.tsv"
    path.write_text("0\t1\t3\n")
    layout = circor.read(tmp_path)
    assert reasons(layout) == {"training_data/61_MV.tsv": "checksum"}
    assert "training_data/61_MV.wav" in set(layout.recordings["source_file"])
    assert "training_data/61_MV.wav" not in set(layout.annotations["source_file"])


@pytest.mark.parametrize("line", ["0\t1\t9", "0\tx\t1", "0 1 1"])
def test_circor_refuses_states_that_are_none(line: str, tmp_path: Path) -> None:
    path = publisher_files.circor(tmp_path) / "training_data" / "61_MV.tsv"
    path.write_text(line)
    publisher_files.write_checksums(tmp_path)
    assert reasons(circor.read(tmp_path)) == {"training_data/61_MV.tsv": "unreadable"}


def test_circor_misses_a_file_that_a_patient_lists(tmp_path: Path) -> None:
    (publisher_files.circor(tmp_path) / "training_data" / "50_MV_2.wav").unlink()
    layout = circor.read(tmp_path)
    assert reasons(layout) == {"training_data/50_MV_2.wav": "missing_file"}
    assert layout.refused["patient_id"][0] == "circor-50"


def test_circor_does_not_follow_a_patients_file_out_of_the_folder(tmp_path: Path) -> None:
    path = publisher_files.circor(tmp_path) / "training_data" / "61.txt"
    path.write_bytes(path.read_bytes().replace(b" 61_MV.wav", b" ../../61_MV.wav"))
    publisher_files.write_checksums(tmp_path)
    assert reasons(circor.read(tmp_path)) == {"training_data/../../61_MV.wav": "outside"}


def test_circor_takes_any_part_of_the_patients(tmp_path: Path) -> None:
    publisher_files.circor(tmp_path, [Child(24, recordings={"AV": 1})])
    publisher_files.circor_table(tmp_path, [child.row() for child in publisher_files.children()])
    layout = circor.read(tmp_path)
    assert layout.refused.empty
    assert len(layout.recordings) == 1


def test_circor_notices_a_recording_with_a_wrong_extension(tmp_path: Path) -> None:
    folder = publisher_files.circor(tmp_path) / "training_data"
    (folder / "61_MV.wav").rename(folder / "61_MV.mp3")
    assert "training_data/61_MV.mp3" in set(circor.read(tmp_path).recordings["source_file"])


# PASCAL's quirks


def test_pascal_rows_meet_files_whatever_their_names(tmp_path: Path) -> None:
    labels = by_file(pascal.read(publisher_files.pascal(tmp_path)))["label_sound"]
    expected = {f"set_a/{name}.wav": label for name, label in publisher_files.SET_A.items()}
    expected |= {f"set_b/{name}.wav": label for name, (_, label) in publisher_files.SET_B.items()}
    assert labels.fillna("").to_dict() == expected


def test_pascal_groups_by_patient_or_by_day(tmp_path: Path) -> None:
    table = by_file(pascal.read(publisher_files.pascal(tmp_path)))
    assert table.loc["set_b/normal__103_1305031931979_D31.wav", ["patient_id", "group"]].tolist() == ["pascal-103"] * 2
    assert table.loc["set_b/normal_noisynormal_101_1305030823364_B_1.wav", "patient_id"] == "pascal-101"
    days = {"murmur__201101051104": "20110105", "normal__201101051538": "20110105",
            "Aunlabelledtest__2011040239": "20110402", "Aunlabelledtest__20110501548": "20110501"}
    for name, day in days.items():
        assert table.loc[f"set_a/{name}.wav", "group"] == f"pascal-day-{day}"
        assert pd.isna(table.loc[f"set_a/{name}.wav", "patient_id"])
        assert table.loc[f"set_a/{name}.wav", "session"] == f"pascal-set_a-{day}"


def test_pascal_sessions_are_days_of_one_sensor(tmp_path: Path) -> None:
    table = by_file(pascal.read(publisher_files.pascal(tmp_path)))
    assert table.loc["set_b/normal__103_1305031931979_D31.wav", "session"] == "pascal-set_b-20110510"
    assert table.loc["set_b/normal_noisynormal_101_1305030823364_B_1.wav", "session"] == "pascal-set_b-20110510"
    assert table["session"].notna().all()


def test_pascal_refuses_a_file_without_a_row(tmp_path: Path) -> None:
    publisher_files.pascal(tmp_path)
    unknown = publisher_files.wav_bytes(publisher_files.beating_noise(7))
    (tmp_path / "set_a" / "murmur__201201010000.wav").write_bytes(unknown)
    (tmp_path / "set_b" / "notes.txt").write_text("what the nurse said")
    assert reasons(pascal.read(tmp_path)) == {
        "set_a/murmur__201201010000.wav": "missing_row", "set_b/notes.txt": "missing_row",
    }


def test_pascal_misses_a_file_that_has_a_row(tmp_path: Path) -> None:
    (publisher_files.pascal(tmp_path) / "set_b" / "murmur__112_1306243000964_A.wav").unlink()
    assert reasons(pascal.read(tmp_path)) == {"set_b/murmur__112_1306243000964_A.wav": "missing_file"}


def test_pascal_refuses_a_row_that_leads_out_of_the_folder(tmp_path: Path) -> None:
    with (publisher_files.pascal(tmp_path) / "set_a.csv").open("a") as file:
        file.write("a,set_a/../../normal__201101051538.wav,normal,\n")
    assert reasons(pascal.read(tmp_path)) == {"set_a/../../normal__201101051538.wav": "outside"}


def test_pascal_refuses_a_file_whose_rows_disagree(tmp_path: Path) -> None:
    with (publisher_files.pascal(tmp_path) / "set_a.csv").open("a") as file:
        file.write("a,set_a/normal__201101051538.wav,murmur,\n")
    assert reasons(pascal.read(tmp_path)) == {"set_a/normal__201101051538.wav": "contradiction"}


def test_pascal_reads_one_set_alone(tmp_path: Path) -> None:
    (publisher_files.pascal(tmp_path) / "set_a.csv").unlink()
    assert set(pascal.read(tmp_path).recordings["source"]) == {"set_b"}


def test_pascal_places_s1_and_s2(tmp_path: Path) -> None:
    states = pascal.read(publisher_files.pascal(tmp_path)).annotations
    assert states["state"].tolist() == ["S1", "S2"]
    assert states["start_s"].tolist() == pytest.approx([10021 / 44100, 20759 / 44100])


# The real files


@pytest.fixture(scope="module")
def pascal_layout(real_pascal: Path) -> Layout:
    return pascal.read(real_pascal)


@pytest.fixture(scope="module")
def circor_layout(real_circor: Path) -> Layout:
    return circor.read(real_circor)


@pytest.mark.real
def test_real_pascal_has_832_files_and_all_have_their_row(pascal_layout: Layout) -> None:
    table = pascal_layout.recordings
    table = table.assign(label_sound=table["label_sound"].fillna("-"))
    assert table.value_counts(["source", "label_sound"]).to_dict() == {
        ("set_a", "artifact"): 40, ("set_a", "extrahls"): 19, ("set_a", "murmur"): 34, ("set_a", "normal"): 31,
        ("set_a", "-"): 52, ("set_b", "normal"): 320, ("set_b", "murmur"): 95, ("set_b", "extrastole"): 46,
        ("set_b", "-"): 195,
    }
    assert pascal_layout.refused.empty


@pytest.mark.real
def test_real_pascal_set_b_names_match_no_file_as_written_but_all_by_key(
    real_pascal: Path, pascal_layout: Layout
) -> None:
    rows = pd.read_csv(real_pascal / "set_b.csv")
    assert len(rows) == 656
    assert sum((real_pascal / name).exists() for name in rows["fname"]) == 0
    assert (pascal_layout.recordings["source"] == "set_b").sum() == 656


@pytest.mark.real
def test_real_pascal_52_set_a_files_have_no_row(real_pascal: Path) -> None:
    named = {Path(name).name for name in pd.read_csv(real_pascal / "set_a.csv").dropna(subset=["label"])["fname"]}
    assert len({path.name for path in (real_pascal / "set_a").iterdir()} - named) == 52


@pytest.mark.real
def test_real_pascal_odd_names_give_patients_and_days(pascal_layout: Layout) -> None:
    groups = by_file(pascal_layout)["group"]
    odd = groups[groups.index.str.contains(r"_D31|_B_1|__2011040239|__20110501548")]
    assert odd.loc["set_a/Aunlabelledtest__2011040239.wav"] == "pascal-day-20110402"
    assert odd.loc["set_a/Aunlabelledtest__20110501548.wav"] == "pascal-day-20110501"
    assert odd.loc["set_b/Bunlabelledtest__146_1306778707532_D31.wav"] == "pascal-146"
    assert odd.index.str.contains("_B_1").any()


@pytest.mark.real
def test_real_pascal_171_patients_35_of_165_with_several_labels(pascal_layout: Layout) -> None:
    named = pascal_layout.recordings.dropna(subset=["patient_id"])
    labelled = named.dropna(subset=["label_sound"])
    labels = labelled.groupby("patient_id")["label_sound"].agg(lambda found: "/".join(sorted(set(found))))
    several = labels[labels.str.contains("/")]
    assert (named["patient_id"].nunique(), len(labels), len(several)) == (171, 165, 35)
    assert (several == "extrastole/normal").sum() == 34
    unlabelled = set(named.loc[named["label_sound"].isna(), "patient_id"])
    assert len(set(labels.index) & unlabelled) == 125


@pytest.mark.real
def test_real_pascal_23_murmurs_come_from_one_session_of_37_minutes(pascal_layout: Layout) -> None:
    table = by_file(pascal_layout)
    session = table[table["group"] == "pascal-day-20110822"]
    minutes = [int(name[-8:-6]) * 60 + int(name[-6:-4]) for name in session.index]      # ...HHMM.wav
    assert (session["label_sound"] == "murmur").sum() == 23
    assert max(minutes) - min(minutes) == 37


@pytest.mark.real
def test_real_pascal_the_source_gives_classes_away(pascal_layout: Layout) -> None:
    sources = pascal_layout.recordings.groupby("label_sound")["source"].unique().map(set).to_dict()
    assert sources["artifact"] == sources["extrahls"] == {"set_a"}
    assert sources["extrastole"] == {"set_b"}
    assert sources["murmur"] == sources["normal"] == {"set_a", "set_b"}


@pytest.mark.real
def test_real_circor_has_421_ids_with_1393_recordings(circor_layout: Layout) -> None:
    table = circor_layout.recordings
    patients = table.drop_duplicates("patient_id")
    assert (len(table), len(patients)) == (1393, 421)
    assert patients["label_murmur"].value_counts().to_dict() == {"Absent": 310, "Present": 80, "Unknown": 31}
    assert circor_layout.refused.empty
    assert set(table["location"]) == {"AV", "PV", "TV", "MV", "Phc"}
    assert table["file_sha256"].notna().all()


@pytest.mark.real
def test_real_circor_29_pairs_of_ids_are_one_child(circor_layout: Layout) -> None:
    ids = set(circor_layout.recordings["patient_id"])
    assert len(circor_layout.same_person) == 29
    assert all(len(pair) == 2 and pair <= ids for pair in circor_layout.same_person)


@pytest.mark.real
def test_real_circor_text_has_crlf_line_ends_and_is_read(real_circor: Path, circor_layout: Layout) -> None:
    with_crlf = [p for p in (real_circor / "training_data").glob("*.hea") if b"\r\n" in p.read_bytes()]
    assert len(with_crlf) == 1393
    assert any(b"\r\n" in p.read_bytes() for p in (real_circor / "training_data").glob("*.tsv"))
    assert circor_layout.recordings["samples"].notna().all()
    assert set(circor_layout.annotations["source_file"]) == set(circor_layout.recordings["source_file"])


@pytest.mark.real
def test_real_circor_has_several_recordings_at_one_location(circor_layout: Layout) -> None:
    counts = circor_layout.recordings.value_counts(["patient_id", "location"])
    assert counts["circor-50204", "MV"] == 2
    assert counts.max() == 2


@pytest.mark.real
def test_real_circor_murmurs_are_heard_at_some_locations_only(circor_layout: Layout) -> None:
    counts = circor_layout.recordings.value_counts(["label_murmur", "label_murmur_here"]).to_dict()
    assert counts == {("Absent", "Absent"): 1050, ("Present", "Present"): 223, ("Present", "Absent"): 45,
                      ("Unknown", "Unknown"): 75}


@pytest.mark.real
def test_real_circor_describes_murmurs_and_hardly_any_diastolic_one(circor_layout: Layout) -> None:
    patients = circor_layout.recordings.drop_duplicates("patient_id")
    assert patients["label_systolic_murmur_grading"].value_counts().to_dict() == {"I/VI": 46, "II/VI": 13, "III/VI": 21}
    assert patients["label_diastolic_murmur_timing"].notna().sum() == 2
    described = patients[patients["label_systolic_murmur_timing"].notna()]
    assert set(described["label_murmur"]) == {"Present"}
