"""BMD-HS: everything that is wrong with the real files is planted in small ones, and found."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import support.publisher_layouts as made
from support.workspaces import Workspace

from heartml import metrics
from heartml.audio import quality
from heartml.core import config, paths
from heartml.core.tasks import TASKS
from heartml.data import ingest
from heartml.data.datasets import Layout, LayoutError, bmdhs
from heartml.evaluation import baselines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything planted. Do not write here."""
    return made.bmdhs(tmp_path_factory.mktemp("bmdhs"), quirks=True)


@pytest.fixture(scope="module")
def layout(folder: Path) -> Layout:
    return bmdhs.read(folder)


def edited(tmp_path: Path, old: str, new: str) -> Layout:
    """The layout after one word of the table was changed."""
    table = made.bmdhs(tmp_path) / "train.csv"
    before = table.read_text()
    assert before.count(old) == 1
    table.write_text(before.replace(old, new))
    return bmdhs.read(tmp_path)


def test_a_file_under_another_name_is_its_patients(layout: Layout) -> None:
    row = layout.recordings.set_index("source_file").loc[f"train/{made.RENAMED[1]}.wav"]
    assert row[["patient_id", "location", "label_mitral_stenosis"]].tolist() == ["bmdhs-085", "TV", "Present"]
    assert "missing_file" not in set(layout.refused["reason"])


def test_files_in_no_row_are_refused_by_name(layout: Layout) -> None:
    expected = {f"train/{name}.wav" for name in made.bmdhs_names(made.NOT_IN_THE_TABLE)}
    assert set(layout.refused["source_file"]) == expected
    assert set(layout.refused["reason"]) == {"missing_row"}


def test_the_patients_are_those_of_the_table_whatever_a_readme_says(layout: Layout) -> None:
    assert layout.recordings.groupby("patient_id").size().to_dict() == {
        f"bmdhs-{number:03d}": 8 for number in (*made.ILL, *made.HEALTHY)
    }


def test_several_diseases_at_once_are_one_label_each(layout: Layout) -> None:
    columns = ["label_disease", *(f"label_{name}" for name in bmdhs.DISEASES)]
    of = layout.recordings.groupby("patient_id")[columns].first()
    assert of.loc["bmdhs-028"].tolist() == ["Diseased", "Absent", "Present", "Absent", "Present"]
    assert of.loc["bmdhs-001"].tolist() == ["Diseased", *["Present"] * 4]
    assert of.loc["bmdhs-089"].tolist() == ["Normal", *["Absent"] * 4]


def test_copies_under_other_positions_come_in_once(
    folder: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.root)
    outcome = ingest.run("bmdhs", folder)
    assert outcome.quarantined == {"duplicate": len(made.COPIES), "missing_row": 8}
    refused = pd.read_parquet(paths.QUARANTINE).set_index("source_file")
    for pair in made.COPIES:
        both = [f"train/{name}.wav" for name in pair]
        [kept] = set(both) - set(refused.index)
        [copy] = set(both) & set(refused.index)
        assert kept in refused.loc[copy, "detail"]
    assert outcome.tasks == ("bmdhs-disease",)


def measured(folder: Path, layout: Layout) -> pd.DataFrame:
    """The recordings with their signal measurements, as the floors want them."""
    rows = []
    for file in layout.recordings["source_file"]:
        waveform, rate_hz = soundfile.read(folder / file, dtype="float32")
        rows.append(vars(quality.measure(waveform, rate_hz)))
    table = layout.recordings.assign(unit_id=layout.recordings["patient_id"]).reset_index(drop=True)
    return pd.concat([table, pd.DataFrame(rows)], axis=1)


def test_every_offset_is_seen(folder: Path, layout: Layout) -> None:
    limits = config.load(Path(__file__).parents[2] / "params.yaml").validate_
    table = measured(folder, layout)
    names = [field.name for field in fields(quality.Quality)]
    warned = ["offset" in quality.warnings(quality.Quality(**{name: row[name] for name in names}), limits)
              for row in table.to_dict("records")]
    shifted = [int(file.split("_")[1]) in made.HEALTHY for file in table["source_file"]]
    copied = [Path(file).stem in {copy for _, copy in made.COPIES} for file in table["source_file"]]
    assert [w for w, c in zip(warned, copied, strict=True) if not c] == [
        s for s, c in zip(shifted, copied, strict=True) if not c]


@pytest.mark.parametrize("floor", ["metadata", "nuisance"])
def test_a_floor_tells_the_healthy_and_says_so(folder: Path, layout: Layout, floor: str) -> None:
    task, table = TASKS["disease"], measured(folder, layout)
    units = table.groupby("unit_id")["label_disease"].first().reset_index()
    numbered = pd.DataFrame({"unit_id": units["unit_id"],
                             "label": [task.classes.index(name) for name in units["label_disease"]],
                             "part": [str(row % 2) for row in range(len(units))]})
    probabilities, _ = baselines.predict(floor, table, numbered, task)
    healthy = numbered["label"].to_numpy() == task.classes.index("Normal")
    parts = numbered["part"].to_numpy()
    auc = metrics.stratified_class_auc(probabilities[:, 1], healthy, np.ones((1, len(units))), parts)[0]
    assert auc > 0.9


def test_a_row_without_answers_leaves_its_recordings_unlabelled(tmp_path: Path) -> None:
    made.bmdhs(tmp_path, quirks=True)
    row = ["patient_022", *["N/A"] * 5, *made.bmdhs_names(made.NOT_IN_THE_TABLE)]
    with (tmp_path / "train.csv").open("a") as file:
        file.write(",".join(row) + "\n")
    layout = bmdhs.read(tmp_path)
    assert layout.refused.empty
    own = layout.recordings[layout.recordings["patient_id"] == "bmdhs-022"]
    assert len(own) == 8
    assert own.filter(like="label_").isna().all(axis=None)


@pytest.mark.parametrize(("old", "new", "why"), [
    ("patient_005,1,0,0,0,0", "patient_005,1,0,0,0,1", "N is 1 with AS"),
    ("patient_089,0,0,0,0,1", "patient_089,0,0,0,0,0", "N is 0 with no disease"),
    ("patient_005,1,0,0,0,0", "patient_005,0,1,0,0,0", "says AR, the name says AS_005_sup_Mit"),
])
def test_answers_that_contradict_each_other_are_refused(tmp_path: Path, old: str, new: str, why: str) -> None:
    refused = edited(tmp_path, old, new).refused
    assert set(refused["reason"]) == {"contradiction"}
    assert len(refused) == 8
    assert why in refused["detail"][0]


def test_two_rows_of_one_patient_that_differ_are_refused(tmp_path: Path) -> None:
    table = made.bmdhs(tmp_path) / "train.csv"
    line = next(line for line in table.read_text().splitlines() if line.startswith("patient_028"))
    with table.open("a") as file:
        file.write(line.replace("MD_028_sup_Mit", "MD_028_sup_Pul") + "\n")
    assert set(bmdhs.read(tmp_path).refused["reason"]) == {"contradiction"}


def test_a_missing_file_and_a_path_that_leads_out_are_refused(tmp_path: Path) -> None:
    layout = edited(tmp_path, "MR_002_sup_Tri", "../MR_002_sup_Tri")
    reasons = dict(zip(layout.refused["source_file"], layout.refused["reason"], strict=True))
    assert reasons == {"train/../MR_002_sup_Tri": "outside", "train/MR_002_sup_Tri.wav": "missing_row"}
    (tmp_path / "train" / "AS_005_sit_Aor.wav").unlink()
    refused = bmdhs.read(tmp_path).refused.set_index("source_file")
    assert refused.loc["train/AS_005_sit_Aor.wav", ["reason", "patient_id"]].tolist() == ["missing_file", "bmdhs-005"]


def test_of_two_files_for_one_row_the_one_that_is_named_is_taken(tmp_path: Path) -> None:
    train = made.bmdhs(tmp_path) / "train"
    (train / f"{made.RENAMED[1]}.wav").write_bytes((train / "N_089_sup_Mit.wav").read_bytes())
    layout = bmdhs.read(tmp_path)
    assert f"train/{made.RENAMED[0]}.wav" in set(layout.recordings["source_file"])
    assert layout.refused["source_file"].tolist() == [f"train/{made.RENAMED[1]}.wav"]


def test_a_table_with_other_columns_is_refused_as_a_whole(tmp_path: Path) -> None:
    (made.bmdhs(tmp_path) / "train.csv").write_text("id,AS\n1,0\n")
    with pytest.raises(LayoutError, match="patient_id"):
        bmdhs.read(tmp_path)
