"""Laws of validation: a planted fault of each kind is found, named and graded; sound data pass; bytes repeat."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.heart_sounds import RATE_HZ, heart_sound
from support.workspaces import ROOT, Workspace

from heartml.audio import sound_files
from heartml.audio.sound_files import Samples
from heartml.core import paths, schema
from heartml.core.stage import StageError
from heartml.core.system import files, hashing
from heartml.stages import validate

CHILDREN = 24
LABELS = ("Present", "Unknown", "Absent")


def recording(child: int, location: str) -> dict[str, object]:
    """Write the samples of one recording; its row of the table."""
    pcm = (16_000 * heart_sound(2 * child + (location == "MV"), 4)).astype(np.int16)
    samples, label = Samples(pcm, RATE_HZ), LABELS[child % 3]
    sound_files.write_flac(paths.audio(samples.recording_id), samples)
    return {
        "recording_id": samples.recording_id, "dataset": "simulated", "source": f"CC{2014 + child % 2}",
        "patient_id": f"simulated-{child}", "group_id": f"simulated-{child}", "location": location,
        "sample_rate_hz": RATE_HZ, "seconds": samples.seconds, "age_group": "Child", "sex": None,
        "source_file": f"training_data/{child}_{location}.wav", "source_sha256": "0" * 64, "licence": "Apache-2.0",
        "label_murmur": label, "label_murmur_here": label,
    }


def write(recordings: pd.DataFrame, annotations: pd.DataFrame, quarantine: pd.DataFrame) -> None:
    files.write_parquet(paths.RECORDINGS, schema.conform(recordings, schema.RECORDINGS, "recordings"))
    files.write_parquet(paths.ANNOTATIONS, schema.conform(annotations, schema.ANNOTATIONS, "annotations"))
    files.write_parquet(paths.QUARANTINE, quarantine.astype("string"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small data set that has no fault: 24 children, two recordings each."""
    folder = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copy(ROOT / "params.yaml", "params.yaml")
        parameters = Path("params.yaml").read_text()
        Path("params.yaml").write_text(re.sub(r"min_class_groups: \d+", "min_class_groups: 8", parameters))
        table = pd.DataFrame([recording(child, place) for child in range(CHILDREN) for place in ("AV", "MV")])
        states = [(i, 0.1, 0.2, "S1") for i in table["recording_id"]]
        refused = [("simulated", "training_data/99_AV.wav", "simulated-99", "silent", "peak 0.000000")]
        write(table, pd.DataFrame(states, columns=list(schema.ANNOTATIONS)),
              pd.DataFrame(refused, columns=list(schema.QUARANTINE)))
    return folder


@pytest.fixture
def project(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sound data set as this test's own, and its working folder."""
    shutil.copytree(sound, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def change(edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    files.write_parquet(paths.RECORDINGS, edit(pd.read_parquet(paths.RECORDINGS)))


def set_value(row: int, **values: object) -> None:
    def edit(table: pd.DataFrame) -> pd.DataFrame:
        changed = table.copy()
        for column, value in values.items():
            changed.loc[row, column] = value
        return changed
    change(edit)


def replace_audio(row: int, alter: Callable[[np.ndarray], np.ndarray]) -> str:
    """Give a recording other samples, under the name that these have; its file's name in the publisher's layout."""
    table = pd.read_parquet(paths.RECORDINGS)
    old = sound_files.read(paths.audio(table.at[row, "recording_id"]))
    pcm = np.clip(alter(old.pcm.astype(float)), -32768, 32767).astype(np.int16)
    new = Samples(pcm, RATE_HZ)
    sound_files.write_flac(paths.audio(new.recording_id), new)
    set_value(row, recording_id=new.recording_id, seconds=new.seconds)
    return str(table.at[row, "source_file"])


def result() -> dict[str, object]:
    return dict(files.read_json(paths.VALIDATION / "validation.json"))


def test_a_sound_data_set_passes_without_a_warning(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validate.run()
    found = result()
    assert (found["success"], found["errors"], found["warnings"]) == (True, [], [])
    assert found["counts"] == {
        "recordings": 48, "patients": 24, "groups": 24, "groups_before_joining": 24, "hours": 0.053,
        "near_duplicate_pairs": 0, "quarantined": 1,
    }
    signal = pd.read_parquet(paths.VALIDATION / "signal.parquet")
    recordings = pd.read_parquet(paths.RECORDINGS)
    assert sorted(signal["recording_id"]) == sorted(recordings["recording_id"])
    assert signal.drop(columns="recording_id").notna().all(axis=None)
    assert capsys.readouterr().err.count("\n") == 1, "one line a run"


def test_numbered_recordings_of_unknown_persons_are_a_warning_and_join_nothing(project: Path) -> None:
    change(lambda t: t.assign(patient_id=pd.NA, source_file=[f"{kind}/{n:02}.wav" for n, kind in enumerate(
        t["label_murmur"])]).astype({"patient_id": "string"}))
    validate.run()
    found = result()
    assert found["success"] and found["counts"]["groups"] == found["counts"]["groups_before_joining"]
    assert not any("consecutive file numbers" in words for words in found["warnings"]), "the two of one child"
    change(lambda t: t.assign(group_id=t["source_file"]))
    validate.run()
    [words] = [words for words in result()["warnings"] if "consecutive file numbers" in words]
    assert f"not so for {CHILDREN} of {CHILDREN} (Absent/" in words


def test_the_quarantine_is_carried_along(project: Path) -> None:
    validate.run()
    assert result()["quarantined_by_reason"] == {"silent": 1}
    note = next(c for c in result()["checks"] if c["suite"] == "quarantine")
    assert (note["severity"], note["success"]) == ("note", False)
    assert note["rows"][0]["source_file"] == "training_data/99_AV.wav"


def missing_file() -> str:
    table = pd.read_parquet(paths.RECORDINGS)
    paths.audio(table.at[5, "recording_id"]).unlink()
    return str(table.at[5, "source_file"])


def altered_file() -> str:
    table = pd.read_parquet(paths.RECORDINGS)
    first, second = (paths.audio(table.at[row, "recording_id"]) for row in (5, 9))
    shutil.copy(first, second)
    return str(table.at[9, "source_file"])


def truncated_file() -> str:
    table = pd.read_parquet(paths.RECORDINGS)
    path = paths.audio(table.at[7, "recording_id"])
    path.write_bytes(path.read_bytes()[:3000])
    return str(table.at[7, "source_file"])


def same_samples_twice() -> str:
    change(lambda t: pd.concat([t, t.iloc[[4]].assign(source_file="training_data/copy.wav")], ignore_index=True))
    return "training_data/copy.wav"


def same_file_twice() -> str:
    set_value(6, source_file="training_data/0_AV.wav")
    return "training_data/0_AV.wav"


def unknown_label() -> str:
    set_value(8, label_murmur_here="Presnt")
    return "training_data/4_AV.wav"


def no_licence() -> str:
    set_value(8, licence=None)
    return "training_data/4_AV.wav"


def patient_in_two_groups() -> str:
    set_value(8, group_id="simulated-else")
    return "simulated-4"


def patient_with_two_labels() -> str:
    set_value(8, label_murmur="Present")
    return "simulated-4"


def silence() -> str:
    return replace_audio(10, lambda pcm: pcm * 0)


def one_sound_two_labels() -> str:
    """Child 1 (Unknown) is child 3 (Present), fainter and cut."""
    pcm = sound_files.read(paths.audio(pd.read_parquet(paths.RECORDINGS).at[6, "recording_id"])).pcm
    return replace_audio(2, lambda _: 0.5 * pcm[900:])


@pytest.mark.parametrize(("plant", "title"), [
    (missing_file, "on disk and decodes"), (altered_file, "on disk and decodes"),
    (truncated_file, "on disk and decodes"),
    (same_samples_twice, "No two rows hold the same samples"), (same_file_twice, "No source file stands in two rows"),
    (unknown_label, "label_murmur_here is Present, Unknown, Absent"), (no_licence, "has a licence"),
    (patient_in_two_groups, "belongs to one group"), (patient_with_two_labels, "belongs to the patient has one value"),
    (silence, "No silence"), (one_sound_two_labels, "does not carry two labels"),
])
def test_a_planted_error_stops_the_pipeline_and_is_named(project: Path, plant: Callable[[], str], title: str) -> None:
    named = plant()
    with pytest.raises(StageError) as caught:
        validate.run()
    assert title in str(caught.value)
    assert named in str(caught.value), "the message names the row"
    assert str(validate.FAILED / "index.html") in str(caught.value)
    assert not paths.VALIDATION.exists()
    kept = files.read_json(validate.FAILED / "validation.json")
    assert not kept["success"]
    assert any(title in words and named in words for words in kept["errors"])
    assert named in (validate.FAILED / "index.html").read_text()


@pytest.mark.parametrize("plant", [patient_with_two_labels, one_sound_two_labels])
def test_an_error_of_one_data_set_stops_its_tasks_and_no_others(project: Path, plant: Callable[[], str]) -> None:
    change(lambda t: t.assign(dataset=["simulated"] * 24 + ["circor"] * 24))
    named = plant()
    validate.run()
    found = result()
    assert found["success"] and named in str(found["errors"])
    assert found["blocked"] == {"simulated": found["errors"]}
    assert "<h1>The data of simulated is not fit for training</h1>" in (paths.VALIDATION / "index.html").read_text()
    change(lambda t: t.assign(licence=t["licence"].where(t["dataset"] != "circor")))
    with pytest.raises(StageError, match="the data is not fit for training"):
        validate.run()


def short() -> str:
    return replace_audio(3, lambda pcm: pcm[: RATE_HZ])


def quiet() -> str:
    return replace_audio(3, lambda pcm: pcm * 0.02)


def clipped() -> str:
    return replace_audio(3, lambda pcm: pcm * 60)


def offset() -> str:
    return replace_audio(3, lambda pcm: pcm + 4000)


def muffled() -> str:
    return replace_audio(3, lambda pcm: 8000 * np.sin(2 * np.pi * 40 * np.arange(len(pcm)) / RATE_HZ))


def hissing() -> str:
    return replace_audio(3, lambda pcm: np.random.default_rng(0).normal(0, 3000, len(pcm)))


def half_silent() -> str:
    return replace_audio(3, lambda pcm: pcm * (np.arange(len(pcm)) < 0.4 * len(pcm)))


def state_after_the_end() -> str:
    table = pd.read_parquet(paths.ANNOTATIONS)
    table.loc[0, "end_s"] = 99.0
    files.write_parquet(paths.ANNOTATIONS, table)
    recordings = pd.read_parquet(paths.RECORDINGS).set_index("recording_id")
    return str(recordings.at[table.at[0, "recording_id"], "source_file"])


def rare_class() -> str:
    change(lambda t: t.assign(label_murmur=t["label_murmur"].replace("Unknown", "Absent").where(t.index > 7, "Unknown"),
                              label_murmur_here=None))
    return "simulated murmur Unknown with 4"


def shared_session() -> str:
    change(lambda t: t.assign(session_id=[f"day {k // 2}" if k > 3 else "one day" for k in range(len(t))]))
    return "(one day)"


@pytest.mark.parametrize(("plant", "title"), [
    (shared_session, "recorded in one session belongs to one group"),
    (short, "last at least 1.5 s"), (quiet, "Not too quiet"), (clipped, "are clipped"), (offset, "DC offset"),
    (muffled, "Not muffled"), (hissing, "Heart sounds stand out"), (half_silent, "half of a recording is silent"),
    (state_after_the_end, "lie inside their recording"), (rare_class, "at least 8 groups"),
])
def test_a_planted_weakness_is_a_warning_that_names_the_row(
    project: Path, plant: Callable[[], str], title: str
) -> None:
    named = plant()
    validate.run()
    warnings = [words for words in result()["warnings"] if title in words]
    assert len(warnings) == 1, result()["warnings"]
    assert named in warnings[0]
    assert result()["success"]


def test_nearly_the_same_audio_joins_groups_and_says_so(project: Path) -> None:
    """Child 9's recording appears under child 3, fainter and cut: both carry the same label."""
    pcm = sound_files.read(paths.audio(pd.read_parquet(paths.RECORDINGS).at[18, "recording_id"])).pcm
    replace_audio(6, lambda _: 0.5 * pcm[1000:])
    validate.run()
    groups = pd.read_parquet(paths.VALIDATION / "groups.parquet").set_index("recording_id")["group_id"]
    recordings = pd.read_parquet(paths.RECORDINGS)
    joined = recordings["recording_id"].map(groups)[recordings["patient_id"].isin(["simulated-3", "simulated-9"])]
    assert set(joined) == {"simulated-3"}
    assert result()["counts"]["groups"] == 23
    assert any("training_data/3_AV.wav and training_data/9_AV.wav at" in words for words in result()["warnings"])


def test_two_runs_write_the_same_bytes_with_and_without_the_cache(project: Path) -> None:
    validate.run()
    first = hashing.sha256_folder(paths.VALIDATION)
    validate.run()
    assert hashing.sha256_folder(paths.VALIDATION) == first
    shutil.rmtree(paths.STATE)
    change(lambda table: table.sample(frac=1, random_state=0))
    validate.run()
    assert hashing.sha256_folder(paths.VALIDATION) == first, "the order of the rows shows"


def test_a_data_set_that_was_mended_leaves_no_failure_behind(project: Path) -> None:
    unknown_label()
    with pytest.raises(StageError):
        validate.run()
    set_value(8, label_murmur_here="Unknown")
    validate.run()
    assert not validate.FAILED.exists()


def test_without_data_it_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    with pytest.raises(StageError, match="run `heartml ingest`"):
        validate.run()


def test_the_page_loads_nothing_and_runs_nothing_that_the_data_say(project: Path) -> None:
    set_value(3, source_file="<script>alert(1)</script>.wav", label_murmur_here="<b>Presnt</b>")
    with pytest.raises(StageError):
        validate.run()
    page = (validate.FAILED / "index.html").read_text()
    assert "<script" not in page
    assert "<b>Presnt" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(?:src|href)\s*=|url\(|@import|https?://", page)
    assert "prefers-color-scheme: dark" in page


def test_the_page_shows_every_check_and_every_class(project: Path) -> None:
    validate.run()
    page = (paths.VALIDATION / "index.html").read_text()
    for check in result()["checks"]:
        assert check["expectation"] in page
    for name in LABELS:
        assert f"<td>{name}</td>" in page
    assert "The data is fit for training" in page


@pytest.mark.real
def test_pascal_passes_with_the_warnings_that_its_files_deserve(ingested_pascal: Workspace, tmp_path: Path) -> None:
    mine = ingested_pascal.copy(tmp_path / "mine")
    mine.run("validate")
    found = files.read_json(mine / "artifacts" / "validation" / "validation.json")
    count = {c["title"]: c["unexpected"] for c in found["checks"] if not c["success"]}
    assert found["success"]
    assert count["A patient's recordings share their label"] == 35
    assert count["At most 1 % of the samples are clipped"] == 11
    assert count["Recordings last at least 1.5 s"] == 32, "34, and two are in quarantine"
    assert count["Not too quiet: peaks reach 0.02 of full scale"] == 5, "6, and one is in quarantine"
    assert count["Nearly the same audio (correlation 0.9 to 0.95) does not carry two labels"] == 1
    assert count["Heart sounds stand out: 8 dB from quiet to loud moments"] == 11
