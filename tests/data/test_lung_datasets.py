"""Lungs, coughs and breath: what the publishers' names and tables say, and what of them is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import support.lung_layouts as made
from support.workspaces import Workspace

from heartml.core import config, lung_tasks, paths, schema
from heartml.core.stage import StageError
from heartml.core.tasks import TASKS, resolve
from heartml.data import ingest
from heartml.data.datasets import (
    Layout,
    PublisherFolder,
    coswara,
    coughvid,
    hls_cmds,
    icbhi,
    kauh,
    side_files,
    simulated_lungs,
    sprsound,
)
from heartml.data.splitting.assign import assign_folds
from heartml.data.splitting.published import read_parts
from heartml.data.splitting.units import label_units
from heartml.data.validation import expectations, run_suites
from heartml.data.validation import tables as validation_tables
from heartml.training import training_set


def by_stem(layout: Layout) -> pd.DataFrame:
    table = layout.recordings
    stems = [file.rsplit("/", 1)[-1].rsplit(".", 1)[0] for file in table["source_file"]]
    return table.assign(stem=stems).set_index("stem")


def reasons(layout: Layout) -> dict[str, str]:
    return dict(zip(layout.refused["source_file"], layout.refused["reason"], strict=True))


def told(table: pd.DataFrame, column: str) -> dict[str, str | None]:
    return {str(key): None if pd.isna(value) else value for key, value in table[column].items()}


LUNGS = (icbhi, sprsound, kauh, coswara, coughvid, hls_cmds, simulated_lungs)


def test_every_task_about_lungs_has_a_data_set() -> None:
    about_lungs = {task for member in LUNGS for task in member.TASKS if TASKS[task].organ == "lung"}
    assert about_lungs == {task.name for task in lung_tasks.LUNG_TASKS}


@pytest.mark.parametrize("separator", [",", ";", "\t", "  "])
def test_fields_of_a_list_may_be_separated_in_any_way(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"101{separator}URTI\r\n\r\n102{separator}Healthy")
    assert side_files.fields(PublisherFolder(tmp_path, "x"), path) == [["101", "URTI"], ["102", "Healthy"]]
    assert side_files.fields(PublisherFolder(tmp_path, "x"), tmp_path / "none.txt") == []


# ICBHI 2017


@pytest.mark.parametrize("kaggle", [True, False])
def test_icbhi_names_lists_and_breaths(tmp_path: Path, kaggle: bool) -> None:
    layout = icbhi.read(made.icbhi(tmp_path, kaggle=kaggle))
    table = by_stem(layout)
    assert layout.refused.empty
    assert told(table, "label_breath_sounds") == {
        "101_1b1_Al_sc_Meditron": "normal", "101_1b1_Pr_sc_Litt3200": "wheeze", "102_1b1_Ar_sc_Meditron": "normal",
        "104_1b1_Ar_mc_AKGC417L": "crackle and wheeze", "104_1b1_Ll_mc_AKGC417L": "crackle",
        "121_1p1_Tc_sc_Meditron": "crackle and wheeze"}
    assert table.loc["104_1b1_Ar_mc_AKGC417L", ["patient_id", "source", "location", "age_group", "sex"]].tolist() == [
        "icbhi-104", "AKGC417L", "Ar", "70-79", "Female"]
    assert told(table.groupby("patient_id").first(), "label_copd") == {
        "icbhi-101": None, "icbhi-102": "Healthy", "icbhi-104": "COPD", "icbhi-121": "Healthy"}
    assert table.loc["101_1b1_Al_sc_Meditron", "label_lung_disease"] == "URTI"
    breaths = layout.annotations[layout.annotations["source_file"].str.contains("104_1b1_Ar")]
    assert breaths["state"].tolist() == ["crackle", "wheeze", "normal"]
    assert breaths["end_s"].tolist() == pytest.approx([0.4, 0.8, 1.2])


def test_icbhi_refuses_what_its_lists_do_not_say(tmp_path: Path) -> None:
    sounds = made.icbhi(tmp_path) / "audio_and_txt_files"
    (sounds / "102_1b1_Ar_sc_Meditron.txt").write_text("0\t0.4\t2\t0\n")
    (sounds / "104_1b1_Ll_mc_AKGC417L.txt").unlink()
    (sounds / "101_1b1_Al_sc_Meditron.wav").rename(sounds / "999_1b1_Al_sc_Meditron.wav")
    (sounds / "101_1b1_Pr_sc_Litt3200.wav").rename(sounds / "101_1b1_Pr.mp3")
    layout = icbhi.read(tmp_path)
    assert reasons(layout) == {
        "audio_and_txt_files/102_1b1_Ar_sc_Meditron.txt": "unreadable",
        "audio_and_txt_files/999_1b1_Al_sc_Meditron.wav": "missing_row",
        "audio_and_txt_files/101_1b1_Pr.mp3": "missing_row"}
    labels = told(by_stem(layout), "label_breath_sounds")
    assert labels["102_1b1_Ar_sc_Meditron"] is None and labels["104_1b1_Ll_mc_AKGC417L"] is None


# SPRSound


def test_sprsound_says_what_its_names_folders_and_json_say(tmp_path: Path) -> None:
    layout = sprsound.read(made.sprsound(tmp_path))
    table = by_stem(layout)
    assert told(table, "source") == {
        "40001_3.4_1_p2_1": "train2022", "40001_3.4_1_p1_2": "train2022", "40002_10.5_0_p3_3": "train2022",
        "40003_0.2_0_p4_4": "train2022", "40004_7.1_1_p1_5": "test2022-inter", "40002_10.5_0_p4_6": "test2022-intra"}
    assert table.loc["40002_10.5_0_p3_3", ["patient_id", "location", "age_group", "sex"]].tolist() == [
        "sprsound-40002", "Pr", "10-19", "Male"]
    assert table.loc["40003_0.2_0_p4_4", "label_adventitious"] == "CAS & DAS"
    events = layout.annotations[layout.annotations["source_file"].str.contains("40003")]
    assert events[["start_s", "end_s", "state"]].to_numpy().tolist() == [
        [0.1, 0.45, "crackle and wheeze"], [0.5, 0.85, "rhonchi"]]


@pytest.mark.parametrize(("text", "reason"), [
    ("{", "unreadable"), ("[" * 100_000, "unreadable"), ("[1]", "unreadable"),
    (json.dumps({"record_annotation": "CAS", "event_annotation": [{"start": 1, "end": 0, "type": "Wheeze"}]}),
     "unreadable"),
    (json.dumps({"record_annotation": "CAS", "event_annotation": [{"start": 1, "end": 2, "type": "Cough"}]}),
     "unreadable"),
])
def test_sprsound_refuses_json_that_is_none(tmp_path: Path, text: str, reason: str) -> None:
    path = made.sprsound(tmp_path) / "BioCAS2022/train2022_json/40001_3.4_1_p1_2.json"
    path.write_text(text)
    layout = sprsound.read(tmp_path)
    assert reasons(layout)[path.relative_to(tmp_path).as_posix()] == reason
    assert not layout.annotations["source_file"].str.contains("40001_3.4_1_p1_2").any()


def test_sprsound_refuses_a_recording_without_json(tmp_path: Path) -> None:
    (made.sprsound(tmp_path) / "BioCAS2022/train2022_json/40001_3.4_1_p1_2.json").unlink()
    assert reasons(sprsound.read(tmp_path)) == {"BioCAS2022/train2022_wav/40001_3.4_1_p1_2.wav": "missing_row"}


# KAUH


def test_of_several_json_files_the_nearest_with_a_label_counts_and_two_labels_are_none(tmp_path: Path) -> None:
    """The publisher has one JSON file for each challenge beside the same recording; some have no label of it."""
    folder = made.sprsound(tmp_path)
    before = sprsound.read(folder).recordings
    for text in list(folder.rglob("*.json")):
        other = folder / "Detection" / "train_detection_json" / text.name
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_text(json.dumps({"event_annotation": []}))
    pd.testing.assert_frame_equal(sprsound.read(folder).recordings, before)
    other = folder / "Detection/train_detection_json/40001_3.4_1_p1_2.json"
    other.write_text(json.dumps({"record_annotation": "DAS", "event_annotation": []}))
    after = sprsound.read(folder)
    assert len(after.recordings) == len(before) - 1
    assert after.refused["reason"].iloc[0] == "contradiction"
    assert "40001_3.4_1_p1_2.json says DAS" in after.refused["detail"].iloc[0]


def test_two_lines_that_differ_about_one_person_are_a_contradiction(tmp_path: Path) -> None:
    folder = made.icbhi(tmp_path / "icbhi")
    [diagnoses] = folder.rglob("patient_diagnosis.csv")
    patient, first = diagnoses.read_text().splitlines()[0].split(",")
    diagnoses.write_text(diagnoses.read_text().rstrip("\n") + f"\n{patient},{first}\n{patient},Pneumonia\n")
    layout = icbhi.read(folder)
    own = layout.refused[layout.refused["patient_id"] == f"icbhi-{patient}"]
    assert len(own) and set(own["reason"]) == {"contradiction"}
    assert f"icbhi-{patient}" not in set(layout.recordings["patient_id"])
    folder = made.coswara(tmp_path / "coswara")
    [table] = folder.rglob("combined_data.csv")
    header, line, *_ = table.read_text().splitlines()
    names, values = header.split(","), line.split(",")
    other = [{"healthy": "positive_mild"}.get(value, "healthy") if name == "covid_status" else value
             for name, value in zip(names, values, strict=True)]
    table.write_text(table.read_text().rstrip("\n") + "\n" + line + "\n" + ",".join(other) + "\n")
    layout = coswara.read(folder)
    person = f"coswara-{values[names.index('id')]}"
    assert set(layout.refused.loc[layout.refused["patient_id"] == person, "reason"]) == {"contradiction"}
    assert person not in set(layout.recordings["patient_id"])
    folder = made.coughvid(tmp_path / "coughvid")
    [table] = folder.rglob("metadata_compiled.csv")
    other = table.read_text().splitlines()[1].replace("healthy", "COVID-19")
    table.write_text(table.read_text().rstrip("\n") + "\n" + other)
    assert list(coughvid.read(folder).refused["reason"]) == ["contradiction"]


def test_kauh_three_filters_are_one_patient(tmp_path: Path) -> None:
    table = kauh.read(made.kauh(tmp_path)).recordings
    assert table.groupby("group").size().to_dict() == {f"kauh-P{n}": 3 for n in (1, 2, 3, 4)}
    assert set(table["source"]) == {"bell", "diaphragm", "extended"}
    assert told(table.groupby("group").first(), "label_obstructive") == {
        "kauh-P1": "Obstructive", "kauh-P2": "Healthy", "kauh-P3": "Obstructive", "kauh-P4": None}
    assert set(table["location"]) == {"Pl lower", "Ar upper", "Pr middle", "Pl upper"}


def test_kauh_refuses_a_name_that_is_none(tmp_path: Path) -> None:
    sounds = made.kauh(tmp_path) / "Audio Files"
    (sounds / "BP2_N,N,A R U,25,F.wav").rename(sounds / "BP2_N,N,A R U,-3,F.wav")
    (sounds / "DP2_N,N,A R U,25,F.wav").rename(sounds / "DP2.wav")
    assert reasons(kauh.read(tmp_path)) == {"Audio Files/BP2_N,N,A R U,-3,F.wav": "unknown_value",
                                            "Audio Files/DP2.wav": "missing_row"}


# Coswara and CoughVID


def test_coswara_reads_coughs_and_breaths_of_each_person(tmp_path: Path) -> None:
    table = coswara.read(made.coswara(tmp_path)).recordings
    assert set(table["location"]) == set(coswara.KINDS) and len(table) == 16
    persons = table.groupby("patient_id").first()
    assert told(persons, "label_smoker") == {
        "coswara-vK2bLRNzll": "Non-smoker", "coswara-bjA2KpSxne": "Smoker", "coswara-htQzROl26O": "Non-smoker",
        "coswara-pW9mCAeWYi": None}
    assert told(persons, "label_sex") == {"coswara-vK2bLRNzll": "Male", "coswara-bjA2KpSxne": "Female",
                                          "coswara-htQzROl26O": "Female", "coswara-pW9mCAeWYi": None}
    assert told(persons, "label_covid") == {
        "coswara-vK2bLRNzll": "COVID-19", "coswara-bjA2KpSxne": "Healthy", "coswara-htQzROl26O": None,
        "coswara-pW9mCAeWYi": "Healthy"}
    heavy = table[table["location"] == "cough-heavy"].set_index("patient_id")
    assert told(heavy, "publisher_quality") == {"coswara-vK2bLRNzll": "poor", "coswara-bjA2KpSxne": "good",
                                                "coswara-htQzROl26O": "good", "coswara-pW9mCAeWYi": "poor"}


def test_coswara_refuses_people_who_are_not_in_the_table(tmp_path: Path) -> None:
    folder = made.coswara(tmp_path) / "Extracted_data"
    (folder / "20200415" / "htQzROl26O").rename(folder / "20200415" / "unknownOne")
    found = reasons(coswara.read(tmp_path))
    assert set(found.values()) == {"missing_row"} and len(found) == 4


@pytest.mark.parametrize("table", [True, False])
def test_coughvid_reads_the_table_or_a_json_file_beside_each(tmp_path: Path, table: bool) -> None:
    layout = coughvid.read(made.coughvid(tmp_path, table=table))
    found = by_stem(layout)
    assert layout.refused.empty
    assert told(found, "label_covid") == {
        "0012c608-33d0": None, "0028b68c-aca4": "COVID-19", "00039425-7f3a": "Healthy", "0029d048-898a": None,
        "0037f67c-0d6f": "Healthy"}
    assert told(found, "label_sex")["0037f67c-0d6f"] is None and found.loc["0037f67c-0d6f", "sex"] == "Other"
    assert told(found, "publisher_quality")["0012c608-33d0"] == "poor"
    assert found["patient_id"].isna().all() and found["group"].is_unique


def test_coughvid_refuses_what_nobody_says_anything_of(tmp_path: Path) -> None:
    (made.coughvid(tmp_path) / "0012c608-33d0.ogg").rename(tmp_path / "ffff.webm")
    assert reasons(coughvid.read(tmp_path)) == {"ffff.webm": "missing_row"}


# Breaths are no heart states


def breaths(*states: str) -> pd.DataFrame:
    rows = [("r1", n * 0.4, (n + 1) * 0.4, state) for n, state in enumerate(states)]
    return pd.DataFrame(rows, columns=list(schema.ANNOTATIONS))


def test_breaths_tell_no_heart_state() -> None:
    assert training_set.states(["r1"], [10], 25.0, [1.2], breaths("normal", "wheeze")) is None
    assert training_set.states(["r1"], [10], 25.0, [1.2], breaths("S1", "wheeze")) is not None


def test_breaths_are_checked_apart_from_heart_states() -> None:
    params = config.load(Path(__file__).parents[2] / "params.yaml")
    ends = breaths("S1", "wheeze", "S5").assign(recording_end_s=1.0, dataset="icbhi", source_file="r1.wav")
    expected = expectations.suites(params.ingest, params.validate_, [], numbered=False)
    tables = {"annotations": schema.of_heart(ends), "breaths": ends.drop(index=schema.of_heart(ends).index)}
    found = run_suites.check(tables, {name: expected[name] for name in tables})
    assert {(one["suite"], one["title"]) for one in found if not one["success"]} == {
        ("annotations", "Heart states are S1, systole, S2, diastole or unannotated"),
        ("annotations", "Heart states lie inside their recording")}


# From a folder to folds


def icbhi_units(folder: Path, task: str) -> pd.DataFrame:
    table = icbhi.read(made.icbhi(folder)).recordings
    table = table.assign(recording_id=table["source_file"], dataset="icbhi", group_id=table["group"])
    return label_units(table, table[["recording_id", "group_id"]], resolve(f"icbhi-{task}"))


def test_the_official_list_of_recordings_is_a_published_split(tmp_path: Path) -> None:
    units = icbhi_units(tmp_path / "icbhi", "breath_sounds")
    official = {name: "test" if name.startswith(("101_1b1_Al", "102")) else "train" for name in made.ICBHI}
    path = tmp_path / "ICBHI_challenge_train_test.txt"
    path.write_text("".join(f"{name}\t{part}\n" for name, part in official.items()))
    params = config.load(Path(__file__).parents[2] / "params.yaml").split.model_copy(update={"folds": 2})
    folds = assign_folds(units, params, 1, read_parts(path))
    placed = {Path(unit).stem: part for unit, part in zip(folds["unit_id"], folds["part"], strict=True)}
    assert {name for name, part in placed.items() if part == "test"} == {"101_1b1_Al_sc_Meditron",
                                                                         "102_1b1_Ar_sc_Meditron"}
    assert "101_1b1_Pr_sc_Litt3200" not in placed      # patient 101 is held out, whatever the list says of training
    path.write_text("102_1b1_Ar_sc_Meditron\ttest\n")
    with pytest.raises(StageError, match="5 recordings are not in the published split"):
        assign_folds(units, params, 1, read_parts(path))


def test_a_challenges_parts_are_a_published_split(tmp_path: Path) -> None:
    table = sprsound.read(made.sprsound(tmp_path / "sprsound")).recordings
    table = table.assign(recording_id=table["source_file"], dataset="sprsound", group_id=table["group"])
    units = label_units(table, table[["recording_id", "group_id"]], resolve("sprsound-adventitious"))
    path = tmp_path / "inter.csv"
    path.write_text("source,part\ntrain2022,train\ntest2022-inter,test\ntest2022-intra,unused\n")
    params = config.load(Path(__file__).parents[2] / "params.yaml").split.model_copy(update={"folds": 2})
    folds = assign_folds(units, params, 1, read_parts(path))
    assert folds.loc[folds["part"] == "test", "unit_id"].str.contains("40004").tolist() == [True]
    assert not folds["unit_id"].str.contains("test2022_wav/40002").any() and len(folds) == 5


@pytest.mark.parametrize(("name", "builder", "task"), [
    ("icbhi", made.icbhi, "icbhi-copd"), ("sprsound", made.sprsound, "sprsound-adventitious"),
    ("coughvid", made.coughvid, "coughvid-covid"),
])
def test_a_folder_is_ingested_and_its_first_task_is_used(
    here: Workspace, tmp_path: Path, name: str, builder: Callable[[Path], Path], task: str
) -> None:
    outcome = ingest.run(name, builder(tmp_path / name))
    assert outcome.quarantined == {} and outcome.tasks == (task,)
    annotations = pd.read_parquet(paths.ANNOTATIONS)
    assert set(annotations["state"]) <= set(schema.BREATH_EVENTS) and (len(annotations) > 0) == (name != "coughvid")
    recordings = pd.read_parquet(paths.RECORDINGS)
    groups = recordings[["recording_id", "group_id"]]
    tables = validation_tables.suite_tables(
        recordings, annotations, pd.read_parquet(paths.QUARANTINE), pd.DataFrame({"recording_id": []}, dtype="string"),
        pd.DataFrame(columns=["recording_id_a", "recording_id_b", "correlation"]), groups, config.load())
    assert ("breaths" in tables) == (name != "coughvid") and tables["annotations"].empty
