"""What a recording is about, by its labels: which limits it gets in validation, and what the heart encoder hears."""

import numpy as np
import pandas as pd
from support.workspaces import ROOT

from heartml.audio.quality import Quality, warnings
from heartml.core import config
from heartml.core.task_definition import OFFICIAL, Task
from heartml.data import organs
from heartml.data.validation import expectations, run_suites, tables
from heartml.training.pretraining import targets

PARAMS = config.load(ROOT / "params.yaml")
SWELL = Quality(10.0, 0.3, -25.0, 0.0, 0.0, 600.0, 0.0, 5.0, 700.0)      # 5 dB are too little for a heart alone


def test_a_recording_with_labels_of_both_is_a_heart() -> None:
    table = pd.DataFrame({"dataset": "a", "label_murmur": ["Absent"], "label_lung_sound": ["Normal"]})
    assert organs.of_recordings(table).tolist() == ["heart"]


def test_without_any_label_it_is_a_heart() -> None:
    assert organs.of_recordings(pd.DataFrame({"dataset": ["a", "b"]})).tolist() == ["heart", "heart"]


def test_a_declared_task_says_what_its_recordings_are_about() -> None:
    table = pd.DataFrame({"dataset": ["a", "b"], "label_stridor": ["yes", None]})
    own = Task("stridor", "stridor", ("yes", "no"), "recording", "uar", OFFICIAL, organ="lung")
    assert organs.of_recordings(table, [own]).tolist() == ["lung", "heart"]


def test_warnings_have_the_limits_and_the_words_of_the_organ() -> None:
    heart, lung = PARAMS.validate_, PARAMS.for_organ("lung").validate_
    assert list(warnings(SWELL, heart)) == ["no heart sounds"]
    assert warnings(SWELL, lung, "lung") == {}
    assert list(warnings(SWELL, lung.model_copy(update={"contrast_db": 6.0}), "lung").values()) == [
        "no lung sounds stand out: loud and quiet moments differ by 5.0 dB"]


def test_validation_checks_lungs_by_their_own_limits() -> None:
    ids = ["a", "b"]
    recordings = pd.DataFrame({
        "recording_id": ids, "dataset": "hls-cmds", "source": "x", "patient_id": None, "group_id": ids, "seconds": 10.0,
        "source_file": ["a.wav", "b.wav"], "label_heart_sound": ["S3", None], "label_lung_sound": [None, "Rhonchi"]})
    signal = tables.signal_table([tables.Measured(one, None, SWELL) for one in ids])
    nothing = pd.DataFrame({"recording_id": [], "start_s": [], "end_s": [], "state": []})
    pairs = pd.DataFrame({"recording_id_a": [], "recording_id_b": [], "correlation": []})
    groups = recordings[["recording_id", "group_id"]]
    found = tables.suite_tables(recordings, nothing, pd.DataFrame(), signal, pairs, groups, PARAMS)
    assert found["signals"]["recording_id"].tolist() == ["a"]
    assert found["lung_signals"]["recording_id"].tolist() == ["b"]
    suites = expectations.suites(PARAMS.ingest, PARAMS.validate_, [], lungs=PARAMS.for_organ("lung").validate_)
    wanted = {name: suites[name] for name in ("signals", "lung_signals")}
    failed = [check["title"] for check in run_suites.check(found, wanted) if not check["success"]]
    assert failed == [f"Heart sounds stand out: {PARAMS.validate_.contrast_db:g} dB from quiet to loud moments"]


def test_the_heart_encoder_learns_no_label_about_lungs() -> None:
    labels = pd.DataFrame({"label_murmur": ["Present", "Absent"], "label_lung_sound": ["Normal", "Rhonchi"]})
    assert list(targets.label_numbers(labels)) == ["murmur"]
    assert np.array_equal(targets.label_numbers(labels)["murmur"], [0, 2])
