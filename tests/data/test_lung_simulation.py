"""Simulated lungs: published shapes of crackles and wheezes, the same bytes for the same arguments, and its adapter."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from heartml.cli import cli
from heartml.core import schema
from heartml.core.system import hashing
from heartml.core.tasks import TASKS
from heartml.data.datasets import LayoutError, simulated_lungs
from heartml.data.simulation import breath, lung_corpus, lungs
from heartml.data.simulation.corpus import SimulateError
from heartml.data.simulation.physiology import SAMPLE_RATE_HZ, sample_times

TIME = sample_times(8.0)
BREATHS = breath.Breaths(np.array([0.0, 4.0]), np.array([1.6, 5.6]), np.array([4.0, 8.0]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people, one of each kind. Do not write here."""
    made = tmp_path_factory.mktemp("lungs") / "corpus"
    lung_corpus.run(made, count=6, seed=3, seconds=6.0)
    return made


@pytest.mark.parametrize(("kind", "deflection_ms", "two_cycles_ms"), [
    ("Fine Crackles", 0.7, 5.0), ("Coarse Crackles", 1.5, 10.0)])
def test_a_crackle_has_its_published_deflection_and_two_cycles(
    kind: str, deflection_ms: float, two_cycles_ms: float
) -> None:
    assert breath.CRACKLES_MS[kind] == (deflection_ms, two_cycles_ms)
    wave = breath.crackle(deflection_ms, two_cycles_ms, rate_hz=1_000_000)
    crossings = np.flatnonzero(np.diff(np.sign(wave[1:-1]))) / 1000      # in ms
    assert len(wave) / 1000 == pytest.approx(two_cycles_ms)
    assert len(crossings) == 3, "two cycles cross zero three times between their ends"
    assert crossings[0] == pytest.approx(deflection_ms, abs=0.01)
    assert (np.diff(crossings) > 0).all() and crossings[0] < crossings[1] - crossings[0], "the wave slows down"
    assert 0.8 < np.abs(wave).max() <= 1.0


def test_wheezes_are_one_pitch_for_at_least_a_tenth_of_a_second() -> None:
    for seed in range(5):
        sound = breath.wheezes(BREATHS, TIME, np.random.default_rng(seed))
        lasting = _runs(np.abs(sound) > 0)
        assert min(lasting) >= breath.SHORTEST_S - 0.01
        hz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE_HZ)
        power = np.abs(np.fft.rfft(sound)) ** 2
        loudest = hz[power.argmax()]
        assert breath.WHEEZE_HZ[0] * 0.85 < loudest < breath.WHEEZE_HZ[1] * 1.15
        near = np.abs(hz - loudest) < 0.2 * loudest
        assert power[near].sum() > 0.9 * power.sum()


def _runs(sounding: np.ndarray) -> list[float]:
    """Lengths in s of what sounds, over gaps of less than 10 ms."""
    filled = np.convolve(sounding, np.ones(SAMPLE_RATE_HZ // 100), "same") > 0
    edges = np.flatnonzero(np.diff(np.concatenate([[0], filled.astype(int), [0]])))
    return [(end - start) / SAMPLE_RATE_HZ for start, end in zip(edges[::2], edges[1::2], strict=True)]


def test_fine_crackles_come_late_in_inspiration_and_coarse_ones_in_both_phases() -> None:
    def power(kind: str) -> np.ndarray:
        squares = sum(breath.crackles(kind, BREATHS, TIME, np.random.default_rng(seed)) ** 2 for seed in range(20))
        of_breath = np.asarray(squares).reshape(2, -1).sum(axis=0).reshape(10, -1).sum(axis=1)      # tenths of a breath
        return of_breath / of_breath.sum()

    fine, coarse = power("Fine Crackles"), power("Coarse Crackles")
    assert fine[2:5].sum() > 0.8
    assert fine[5:].sum() < 0.02
    assert coarse[:3].sum() > 0.4
    assert coarse[4:].sum() > 0.15


def test_inspiration_is_louder_and_the_sound_falls_above_its_corner() -> None:
    sound = breath.vesicular(BREATHS, 130.0, TIME, np.random.default_rng(0))
    inward = TIME % 4.0 < 1.6
    assert np.sqrt(np.mean(sound[inward] ** 2)) == pytest.approx(1.0, rel=0.15)
    assert np.mean(sound[inward] ** 2) > 3 * np.mean(sound[~inward] ** 2)
    hz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE_HZ)
    power = np.abs(np.fft.rfft(sound)) ** 2
    assert power[(hz > 100) & (hz < 200)].mean() > 30 * power[(hz > 500) & (hz < 1000)].mean()


def test_a_person_does_not_depend_on_the_number_of_people_and_every_kind_is_in_each_six(folder: Path) -> None:
    patients = [lungs.draw_patient(3, number) for number in range(12)]
    for block in (patients[:6], patients[6:]):
        assert {one.kind for one in block} == set(lungs.KINDS) == set(TASKS["lung_sounds"].classes)
    assert all(one.heard_at if one.kind != "Normal" else not one.heard_at for one in patients)
    again = lungs.record(3, patients[5], 6.0)
    first = (folder / "audio" / "00005_1.wav").read_bytes()[44:]
    assert first == again[0].pcm.tobytes()


def test_the_same_arguments_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    numbers = ["--children", "6", "--seed", "3", "--seconds", "6"]
    done = CliRunner().invoke(cli, ["simulate", str(tmp_path / "again"), "--organ", "lungs", *numbers])
    assert done.exit_code == 0
    assert done.output.startswith("6 people, 24 recordings: ")
    assert hashing.sha256_folder(tmp_path / "again") == hashing.sha256_folder(folder)


def test_what_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(SimulateError, match="not empty"):
        lung_corpus.run(tmp_path / "mine", count=1, seed=1, seconds=2.0)
    with pytest.raises(SimulateError, match="6 seconds at least, because a shorter one may end before the sound"):
        lung_corpus.run(tmp_path / "short", count=1, seed=1, seconds=5.9)
    refused = CliRunner().invoke(cli, ["simulate", str(tmp_path / "new"), "--organ", "lungs", "--faults"])
    assert refused.exit_code == 2
    assert "none are planted among lungs" in refused.output


def test_every_recording_is_read_with_its_place_and_its_breaths(folder: Path) -> None:
    layout = simulated_lungs.read(folder)
    table = layout.recordings
    assert layout.refused.empty
    assert table["file_sha256"].notna().all()
    assert table.groupby("patient_id")["location"].apply(set).tolist() == [set(lungs.PLACES)] * 6
    ill = table[table["label_lung_sound"] != "Normal"]
    assert (ill.groupby("patient_id")["label_lung_sound"].nunique() == 1).all()
    assert set(layout.annotations["state"]) <= set(schema.BREATH_EVENTS)
    assert schema.of_heart(layout.annotations).empty


@pytest.mark.parametrize(("old", "new", "reason"), [
    ("audio/00001_1.wav", "../1.wav", "outside"), ("audio/00001_1.wav", "audio/1.wav", "missing_file"),
    ("audio/00001_1.wav,00001", "audio/00001_1.wav,", "malformed"),
    ("audio/00001_1.wav", "audio/00000_1.wav", "contradiction"),
])
def test_a_row_that_does_not_fit_is_refused(folder: Path, tmp_path: Path, old: str, new: str, reason: str) -> None:
    (tmp_path / "audio").symlink_to(folder / "audio")
    text = (folder / "recordings.csv").read_text()
    assert text.count(old) == 1
    (tmp_path / "recordings.csv").write_text(text.replace(old, new))
    layout = simulated_lungs.read(tmp_path)
    assert layout.refused["reason"].tolist() == [reason]
    assert len(layout.recordings) == 23


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="--organ lungs"):
        simulated_lungs.read(tmp_path)


def test_the_demo_of_hearts_is_another_data_set(folder: Path) -> None:
    assert simulated_lungs.NAME == "simulated-lungs"
    assert pd.read_csv(folder / "breaths.csv").shape[1] == len(lung_corpus.BREATH_COLUMNS)
