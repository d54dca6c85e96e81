"""An ingest never takes recordings or labels of an earlier one away without a word."""

from pathlib import Path

import pandas as pd
import pytest
import support.publisher_layouts as made
from support.workspaces import Workspace

from heartml.core import paths
from heartml.data import ingest
from heartml.data.ingest import version
from heartml.data.ingest.earlier import EarlierRecordingsError

PEDAL = {"column": "murmur", "classes": ["yes", "no"]}


def clinic(folder: Path, first: int, patients: int = 2) -> Path:
    return made.generic(folder, "clinic", patients=patients, first=first, labels={}, tasks={"pedal": PEDAL})


def test_another_collection_of_the_same_name_is_refused(here: Workspace, tmp_path: Path) -> None:
    ingest.run("generic", clinic(tmp_path / "berlin", 400))
    before = paths.RECORDINGS.read_bytes()
    with pytest.raises(EarlierRecordingsError, match=r"clinic: 4 of 4 files .*another sound.*--name NAME.*--replace"):
        ingest.run("generic", clinic(tmp_path / "paris", 420))
    assert paths.RECORDINGS.read_bytes() == before
    assert not version.BUILD.exists()
    replaced = ingest.run("generic", tmp_path / "paris", replace=True)
    assert replaced.new == 4
    assert replaced.notes[0].startswith("clinic: 4 of 4 earlier recordings are gone")


def test_a_corrected_file_takes_the_place_of_the_former_one_and_is_named(here: Workspace, tmp_path: Path) -> None:
    ingest.run("generic", clinic(tmp_path / "berlin", 400))
    clinic(tmp_path / "other", 420)
    file = "sounds/0_apex.wav"
    (tmp_path / "berlin" / file).write_bytes((tmp_path / "other" / file).read_bytes())
    outcome = ingest.run("generic", tmp_path / "berlin")
    assert (outcome.recordings, outcome.new) == (4, 1)
    assert outcome.notes[0] == (f"clinic: 1 of 4 earlier recordings are gone (replaced, refused now, or not in this "
                                f"folder): {file}.")


def test_persons_of_two_folders_that_become_one_are_named(here: Workspace, tmp_path: Path) -> None:
    ingest.run("generic", clinic(tmp_path / "berlin", 400))
    rome = clinic(tmp_path / "rome", 420)
    (rome / "sounds").rename(rome / "suoni")
    (rome / "recordings.csv").write_text((rome / "recordings.csv").read_text().replace("sounds/", "suoni/"))
    outcome = ingest.run("generic", rome)
    assert outcome.recordings == 8
    assert "4 recordings of another folder stay, and 2 patients are taken for persons of both: clinic-P0, clinic-P1" \
        in outcome.notes[0]


def test_labels_of_a_task_that_is_gone_are_not_lost_in_silence(here: Workspace, tmp_path: Path) -> None:
    ingest.run("generic", clinic(tmp_path / "a", 400))
    other = {"other": {"column": "site", "classes": ["apex", "tricuspid"]}}
    more = made.generic(tmp_path / "b", "clinic", patients=2, first=420, labels={}, tasks=other)
    (more / "sounds").rename(more / "more")
    (more / "recordings.csv").write_text((more / "recordings.csv").read_text().replace("sounds/", "more/"))
    with pytest.raises(EarlierRecordingsError, match=r"no task pedal any more, and 4 earlier recordings .*--replace"):
        ingest.run("generic", more)
    assert pd.read_parquet(paths.RECORDINGS)["label_pedal"].notna().all()
    same = made.generic(tmp_path / "a", "clinic", patients=2, first=400, labels={}, tasks=other)
    assert "clinic: 4 labels of pedal are gone, which the mapping file does not name any more." in ingest.run(
        "generic", same).notes
