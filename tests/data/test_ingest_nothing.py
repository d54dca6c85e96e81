"""An ingest that takes nothing changes nothing; a dry run says what would be taken; two answers are quarantined."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.ingested_data import data_checksums, quarantine_reasons
from support.publisher_files import beating_noise, wav_bytes
from support.workspaces import Workspace

from heartml.cli import tables
from heartml.core import paths
from heartml.data import ingest
from heartml.data.ingest import NothingPassedError

MAPPING = """title: T
citation: C
licence: CC0-1.0
table: recordings.csv
columns: {path: file, patient: subject}
labels:
  murmur: {column: diagnosis}
"""


def clinic(folder: Path, *rows: str) -> Path:
    """Six recordings and a table with these rows (`file,subject,diagnosis`)."""
    folder.mkdir(exist_ok=True)
    for n in range(6):
        (folder / f"r{n}.wav").write_bytes(wav_bytes(beating_noise(n)))
    (folder / "recordings.csv").write_text("\n".join(["file,subject,diagnosis", *rows]) + "\n")
    (folder / "clinic.yaml").write_text(MAPPING)
    return folder


GOOD = [f"r{n}.wav,p{n},{('Absent', 'Present')[n % 2]}" for n in range(6)]
WRONG = [row.replace("r", "sounds/R", 1) for row in GOOD]


def state() -> tuple[dict[str, str], str]:
    return data_checksums(), paths.PARAMS.read_text()


def test_an_ingest_that_takes_nothing_changes_nothing(here: Workspace, tmp_path: Path) -> None:
    folder, before = clinic(tmp_path / "clinic", *WRONG), paths.PARAMS.read_text()
    with pytest.raises(NothingPassedError, match=r"no recording of clinic passed the checks, so nothing was changed: "
                       r"sounds/R0\.wav: missing_file: .* no such file: is r0\.wav meant\?.*; 1 more"):
        ingest.run("generic", folder)
    assert not paths.DATA.exists()
    assert not Path("data.dvc").exists()
    assert paths.PARAMS.read_text() == before
    outcome = ingest.run("generic", clinic(folder, *GOOD))
    assert (outcome.recordings, dict(outcome.quarantined)) == (6, {}), "nothing of the mistake is left"
    whole = state()
    for replace in (False, True):
        with pytest.raises(NothingPassedError, match="; 1 more"):
            ingest.run("generic", clinic(folder, *WRONG), replace=replace)
        assert state() == whole


def test_a_dry_run_tells_what_an_ingest_then_does(
    here: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, before = clinic(tmp_path / "clinic", *GOOD[:5], "r5.wav,p5,perhaps"), paths.PARAMS.read_text()
    told = ingest.run("generic", folder, dry_run=True)
    tables.ingest(told)
    printed = capsys.readouterr().out
    assert "would be in data/" in printed
    assert "r5.wav: unknown_label: murmur is 'perhaps'" in printed
    assert "nothing was written" in printed
    assert not paths.DATA.exists()
    assert not Path(".heartml/ingest").exists()
    assert paths.PARAMS.read_text() == before
    done = ingest.run("generic", folder)
    assert {**done.as_dict(), "dry_run": True, "refused": told.first_refused} == told.as_dict()
    assert f"tasks would become [{done.tasks[0]}] (--keep-tasks leaves it)" in printed
    whole = state()
    assert not ingest.run("generic", folder, dry_run=True).changed
    assert state() == whole


def test_a_dry_run_shows_five_refusals_and_says_how_to_see_all(
    here: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = clinic(tmp_path / "clinic", *GOOD, *(f"gone{n}.wav,q{n},Absent" for n in range(7)))
    told = ingest.run("generic", folder, dry_run=True)
    tables.ingest(told)
    assert "Refused, the first 5 of 7 (--dry-run --json lists all):" in capsys.readouterr().out
    assert [line.partition(":")[0] for line in told.as_dict()["refused"]] == [f"gone{n}.wav" for n in range(7)]
    tables.ingest(ingest.run("generic", folder))
    assert "Refused, the first 5 of 7:" in capsys.readouterr().out


def test_a_row_that_is_refused_hides_no_second_answer(here: Workspace, tmp_path: Path) -> None:
    rows = [*GOOD, "gone.wav,p0,Present", "r9.wav,p2,perhaps"]
    assert ingest.run("generic", clinic(tmp_path / "clinic", *rows)).recordings == 5
    assert quarantine_reasons() == {"r0.wav": "contradiction", "gone.wav": "missing_file", "r9.wav": "missing_file"}


def test_a_patient_with_two_answers_goes_into_quarantine(here: Workspace, tmp_path: Path) -> None:
    rows = [GOOD[0], GOOD[1].replace("p1", "p0"), *GOOD[2:]]
    assert ingest.run("generic", clinic(tmp_path / "clinic", *rows)).recordings == 4
    assert quarantine_reasons() == {"r0.wav": "contradiction", "r1.wav": "contradiction"}
    table = pd.read_parquet(paths.RECORDINGS)
    assert np.all(table.groupby("patient_id")["label_murmur"].nunique() == 1)
    before = data_checksums()
    assert not ingest.run("generic", tmp_path / "clinic").changed
    assert data_checksums() == before
