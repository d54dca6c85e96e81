"""The table of `heartml score`: each number in its column, no prediction beside a fault, no half table."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from heartml.audio.entry_checks import Fault
from heartml.inference import score_table
from heartml.inference.inputs import InputFile
from heartml.inference.predict import NOTICE, ScoredRecording
from heartml.inference.score_table import ModelFacts
from heartml.inference.training_recordings import KnownRecordings

FACTS = ModelFacts("simulated-murmur", "patient", ("Present", "Absent"), "simulated-murmur", "3", "ab" * 32)
PREDICTION = {
    "decision": "refer", "leaning": "Absent", "confidence": 0.55, "reasons": ["no heart sounds found"],
    "calibrated": {"Present": 0.45, "Absent": 0.55}, "probabilities": {"Present": 0.4, "Absent": 0.6},
    "recordings": {"r1": {"probabilities": {"Present": 0.1, "Absent": 0.9}, "heart_rate_per_min": 90.0},
                   "r2": {"probabilities": {"Present": 0.7, "Absent": 0.3}, "heart_rate_per_min": None}}}


def recording(name: str, recording_id: str, fault: Fault | None = None) -> ScoredRecording:
    seconds, rate_hz = (9.5, 4000) if recording_id else (0.0, None)
    return ScoredRecording(InputFile(Path(name), "p1", "MV"), seconds, fault, ("too quiet", "short"), {},
                           recording_id=recording_id, sample_rate_hz=rate_hz)


FILES = [recording("a.wav", "r1"), recording("b.wav", "r2"), recording("c.wav", "", Fault("not_audio", "no sound")),
         recording("d.wav", "r4", Fault("silent", "peak 0"))]


def written(path: Path, files: list[ScoredRecording] = FILES) -> pd.DataFrame:
    with score_table.writing(path, FACTS) as append:
        for one in files:
            append(score_table.rows("p1", [one], "key", PREDICTION, "a soft murmur", FACTS))
    return pd.read_parquet(path).set_index("path")


def test_each_number_is_in_its_column_and_each_recording_has_its_own(tmp_path: Path) -> None:
    table = written(tmp_path / "scores.parquet")
    assert table.index.tolist() == ["a.wav", "b.wav", "c.wav", "d.wav"]
    first, second = table.loc["a.wav"], table.loc["b.wav"]
    for row in (first, second):
        assert (row["unit_id"], row["decision"], row["leaning"], row["confidence"]) == ("p1", "refer", "Absent", 0.55)
        assert row["reasons"] == "no heart sounds found"
        assert (row["c_Present"], row["c_Absent"], row["p_Present"], row["p_Absent"]) == (0.45, 0.55, 0.4, 0.6)
        assert (row["unit_recordings"], row["warnings"]) == (2, "too quiet; short")
        assert (row["description"], row["answer_key"], row["version"]) == ("a soft murmur", "key", "3")
    assert (first["r_Present"], second["r_Present"]) == (0.1, 0.7)
    assert (first["heart_rate_per_min"], pd.isna(second["heart_rate_per_min"])) == (90.0, True)


def test_what_the_model_used_a_recording_for_stands_beside_it() -> None:
    used = KnownRecordings(frozenset({"r1"}), frozenset({"r4"}))
    rows = score_table.rows("p1", FILES, "key", PREDICTION, "", FACTS, used)
    assert [row["used_for"] for row in rows] == ["trained", None, None, "held out"]


def test_beside_a_fault_there_is_no_prediction(tmp_path: Path) -> None:
    table = written(tmp_path / "scores.parquet")
    predicted = ["decision", "leaning", "confidence", "c_Present", "p_Absent", "r_Present", "answer_key", "description",
                 "reasons"]
    for name, reason in (("c.wav", "not_audio"), ("d.wav", "silent")):
        assert table.loc[name, "fault"] == reason
        assert table.loc[name, predicted].isna().all()
        assert table.loc[name, "model_sha256"] == "ab" * 32
    assert pd.isna(table.loc["c.wav", "seconds"]) and table.loc["d.wav", "seconds"] == 9.5
    assert table.loc[["a.wav", "b.wav"], "fault"].isna().all()


def test_columns_and_metadata_name_classes_and_model_and_no_time(tmp_path: Path) -> None:
    written(tmp_path / "scores.parquet")
    schema = pq.read_schema(tmp_path / "scores.parquet")
    about = json.loads(schema.metadata[b"heartml"])
    assert about == {"format": 1, "notice": NOTICE, "task": "simulated-murmur", "unit": "patient", "version": "3",
                     "classes": ["Present", "Absent"], "model": "simulated-murmur", "model_sha256": "ab" * 32}
    documented = {name.strip() for line in (score_table.__doc__ or "").splitlines() if line.startswith("| ")
                  for name in line.split("|")[1].split(",")} - {"column", "---"}
    classes = {f"{kind}_<class>" for kind in "cpr"}
    assert classes <= documented
    assert documented - classes | {f"{kind}_{name}" for kind in "cpr" for name in FACTS.classes} == set(schema.names)


def test_what_to_know_about_the_model_stands_in_every_row(tmp_path: Path) -> None:
    facts = replace(FACTS, cautions=("version 3: the gate refused it", "version 3: consent was withdrawn"))
    path = tmp_path / "scores.parquet"
    with score_table.writing(path, facts) as append:
        append(score_table.rows("p1", FILES, "key", PREDICTION, "", facts))
    assert set(pd.read_parquet(path)["cautions"]) == {
        "version 3: the gate refused it; version 3: consent was withdrawn"}
    assert written(path)["cautions"].isna().all()


def test_the_table_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    written(path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), score_table.writing(path, FACTS) as append:
        append(score_table.rows("p1", FILES[:1], "key", PREDICTION, "", FACTS))
        raise RuntimeError("half way")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["scores.parquet"]
    written(tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == before, "the same files and model, the same bytes"


def test_a_name_that_is_no_utf_8_is_escaped(tmp_path: Path) -> None:
    table = written(tmp_path / "scores.parquet", [recording("a\udcff.wav", "r1")])
    assert table.index.tolist() == ["a\\udcff.wav"]
