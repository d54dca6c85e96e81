"""A descriptor's split is the murmur's: whoever a murmur network has not heard is whom it describes, held out too."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.workspaces import ROOT

from heartml.core import config, folds, paths, schema
from heartml.core.folds import TEST, FoldsError
from heartml.core.stage import StageError
from heartml.core.system import files, hashing
from heartml.core.tasks import resolve
from heartml.data.splitting import task_draw, within
from heartml.stages import split

MURMUR, SHAPE = resolve("circor-murmur"), resolve("circor-systolic_shape")
COLUMN = schema.label_column(SHAPE.task.label)


def children(count: int = 240, seed: int = 0) -> pd.DataFrame:
    """Children with up to four recordings, some under two ids, of which every third has a murmur that is described."""
    rng = np.random.default_rng(seed)
    rows = []
    for child in range(count):
        present = child % 3 == 0
        shape = ("Plateau", "Diamond")[child // 3 % 2] if present and child != 9 else "Crescendo" if present else None
        for patient in [f"circor-{child}"] + [f"circor-{child}-again"] * (child % 10 == 3):
            murmur = "Present" if present else rng.choice(["Absent", "Unknown"], p=[0.9, 0.1])
            rows += [(hashing.sha256(f"{patient}{place}".encode()), "circor", patient, f"circor-{child}", "CC2015",
                      f"{patient}_{place}.wav", murmur, shape) for place in range(rng.integers(1, 5))]
    columns = ["recording_id", "dataset", "patient_id", "group_id", "source", "source_file", "label_murmur", COLUMN]
    return pd.DataFrame(rows, columns=columns).astype("string")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """A working folder with these children; returns its recordings."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    recordings = children()
    write(recordings)
    return recordings


def write(recordings: pd.DataFrame) -> None:
    files.write_parquet(paths.RECORDINGS, recordings)
    files.write_parquet(paths.VALIDATION / "groups.parquet", recordings[["recording_id", "group_id"]])
    files.write_json(paths.VALIDATION / "validation.json", {"success": True, "errors": []})


def parts(name: str) -> dict[str, str]:
    """Part of every recording that a model of the task may hear or is scored on."""
    table = folds.read_heard(paths.folds(name))
    return dict(zip(table["recording_id"], table["part"], strict=True))


def test_every_shared_patient_is_in_the_part_that_the_murmur_task_has_it_in(project: pd.DataFrame) -> None:
    split.run(MURMUR.name)
    split.run(SHAPE.name)
    murmur, shape = parts(MURMUR.name), parts(SHAPE.name)
    assert {murmur[one] for one in shape} == {TEST, "0", "1", "2", "3", "4"}
    assert all(murmur[one] == part for one, part in shape.items())
    heard_in_folds = {one for one, part in murmur.items() if part != TEST}
    assert {one for one, part in shape.items() if part != TEST} == heard_in_folds, "and everything of its folds"
    cases = folds.load(paths.folds(SHAPE.name))
    assert set(cases["label"]) == {"Plateau", "Diamond"}, "a rare shape is no case, and its child is heard"


def test_a_reader_sees_cases_alone_unless_it_asks_for_what_was_heard(
    project: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    split.run(SHAPE.name)
    described = project.loc[project[COLUMN].isin(["Plateau", "Diamond"]), "recording_id"]
    for table in (folds.load(paths.folds(SHAPE.name)), folds.read(paths.folds(SHAPE.name))):
        assert set(table["recording_id"]) == set(described)
        assert table["label"].notna().all()
    heard = folds.read_heard(paths.folds(SHAPE.name))
    context = heard[heard["label"].isna()]
    assert len(heard) == len(described) + len(context) and len(context)
    assert TEST not in set(context["part"]), "what the murmur task holds out is heard by nobody"
    said = capsys.readouterr().err
    assert f"parts as in circor-murmur, with {len(context)} further recordings" in said
    assert "Crescendo left out: 1 patients" in said


def test_the_draw_does_not_wait_for_the_other_task_and_takes_its_parameters(project: pd.DataFrame) -> None:
    text = Path("params.yaml").read_text()
    own = "    pascal-sounds: {folds: 10}"
    assert own in text
    more = "    circor-murmur: {folds: 3}\n    circor-systolic_shape: {folds: 7}"
    Path("params.yaml").write_text(text.replace(own, f"{own}\n{more}"))
    split.run(SHAPE.name)      # before the murmur's
    assert set(parts(SHAPE.name).values()) == {TEST, "0", "1", "2"}
    split.run(MURMUR.name)
    murmur = parts(MURMUR.name)
    assert all(murmur[one] == part for one, part in parts(SHAPE.name).items())


def test_a_published_split_of_the_other_task_is_this_ones(project: pd.DataFrame) -> None:
    table = project.drop_duplicates("patient_id")
    held_out = table["group_id"].isin([f"circor-{child}" for child in range(0, 60)])
    paths.SPLITS.mkdir()
    pd.DataFrame({"patient_id": table["patient_id"], "part": np.where(held_out, "test", "train")}).to_csv(
        paths.SPLITS / "published.csv", index=False)
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("  published: null", "  published: splits/published.csv", 1))
    split.run(SHAPE.name)
    found = folds.load(paths.folds(SHAPE.name))
    assert set(found.loc[found["part"] == TEST, "group_id"]) == {f"circor-{child}" for child in range(0, 60, 3)} - {
        "circor-9"}


def test_a_description_of_somebody_without_a_murmur_label_gives_a_draw_of_its_own(project: pd.DataFrame) -> None:
    labels = project["label_murmur"].mask(project["patient_id"] == "circor-6")
    write(project.assign(label_murmur=labels))
    split.run(SHAPE.name)
    found = folds.read_heard(paths.folds(SHAPE.name))
    assert found["label"].notna().all() and "circor-6" in set(found["unit_id"])
    write(project.drop(columns="label_murmur"))
    split.run(SHAPE.name)
    assert folds.read_heard(paths.folds(SHAPE.name)).equals(found)


def test_a_part_without_anybody_to_describe_is_named(project: pd.DataFrame) -> None:
    split.run(MURMUR.name)
    murmur = parts(MURMUR.name)
    units = task_draw.draw(SHAPE, project, project[["recording_id", "group_id"]], config.load()).units
    parents = task_draw.draw(MURMUR, project, project[["recording_id", "group_id"]], config.load()).units
    without = units[units["recording_id"].map(murmur) != "3"]
    with pytest.raises(StageError, match="leave fold 3 empty in the draw"):
        within.assign_within(without, parents, config.load().split, config.load().seed)


def test_context_that_is_held_out_or_shares_a_group_with_another_part_is_refused(project: pd.DataFrame) -> None:
    split.run(SHAPE.name)
    heard = folds.read_heard(paths.folds(SHAPE.name))
    row = int(np.flatnonzero(heard["label"].isna())[0])
    heard.loc[heard["unit_id"] == heard["unit_id"][row], "part"] = TEST
    with pytest.raises(FoldsError, match="has no label and is held out"):
        folds.check_folds(heard)
    heard = folds.read_heard(paths.folds(SHAPE.name))
    of_fold = heard[heard["label"].notna() & (heard["part"] == "1")].iloc[0]
    heard.loc[(heard["part"] == "0") & heard["label"].isna(), "group_id"] = of_fold["group_id"]
    with pytest.raises(FoldsError, match="has part 0 and 1"):
        folds.check_folds(heard)
