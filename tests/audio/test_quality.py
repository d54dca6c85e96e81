"""Laws of the signal measurements, each on a signal whose answer is known."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.finished_project import draw_heart_sound
from support.workspaces import ROOT

from heartml.audio.quality import Quality, measure, warnings
from heartml.core import config

RATE_HZ = 4000
PARAMS = config.load(ROOT / "params.yaml").validate_


def tone(hertz: float = 200, seconds: float = 3, peak: float = 0.5) -> np.ndarray:
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return (peak * np.sin(2 * np.pi * hertz * time_s)).astype(np.float32)


def test_a_tone_is_measured_as_it_was_made() -> None:
    found = measure(tone(200, 3, 0.5) + np.float32(0.1), RATE_HZ)
    assert found.seconds == 3
    assert found.dc == pytest.approx(0.1, abs=1e-4)
    assert found.peak == pytest.approx(0.6, abs=1e-3)
    assert found.level_db == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert found.bandwidth_hz == pytest.approx(200, abs=2)
    assert found.clipped_share == 0
    assert found.silent_share == 0
    assert found.contrast_db < 1


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 1.0))
def test_gain_changes_the_level_and_nothing_of_the_shape(gain: float) -> None:
    sound = tone(120, 2, 0.8) * np.hanning(2 * RATE_HZ).astype(np.float32)
    loud, quiet = measure(sound, RATE_HZ), measure(sound * np.float32(gain), RATE_HZ)
    assert quiet.level_db == pytest.approx(loud.level_db + 20 * np.log10(gain), abs=0.05)
    assert quiet.bandwidth_hz == pytest.approx(loud.bandwidth_hz, rel=0.01)


def test_samples_at_the_rail_are_clipped_wherever_the_rail_is() -> None:
    for rail in (1.0, 127 / 128):      # 16 bits and 8 bits
        clipped = np.clip(tone(37, peak=3.0), -rail, rail)
        assert measure(clipped, RATE_HZ).clipped_share == pytest.approx(1 - 2 / np.pi * np.arcsin(1 / 3), abs=0.01)
    assert measure(np.clip(tone(37, peak=3.0), -0.5, 0.5), RATE_HZ).clipped_share == 0, "a quiet plateau is no rail"


def test_a_pause_is_silence_and_raises_the_contrast() -> None:
    half = np.concatenate([tone(seconds=2), np.zeros(2 * RATE_HZ, np.float32)])
    found = measure(half, RATE_HZ)
    assert found.silent_share == pytest.approx(0.5, abs=0.02)
    assert found.contrast_db > 50


@pytest.mark.parametrize(("level_db", "silent"), [(-75, 0), (-85, 1)])
def test_silence_lies_below_80_db_under_full_scale(level_db: float, silent: float) -> None:
    noise = np.random.default_rng(0).normal(0, 10 ** (level_db / 20), 2 * RATE_HZ).astype(np.float32)
    assert measure(noise, RATE_HZ).silent_share == silent


@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_next_to_nothing_can_be_measured(length: int) -> None:
    found = measure(np.zeros(length, np.float32), RATE_HZ)
    assert found.seconds == length / RATE_HZ
    assert found.bandwidth_hz == 0
    assert all(np.isfinite(value) for value in vars(found).values())


def beating(high_hz: float | None = None) -> np.ndarray:
    """A heart sound of 4 s; nothing above `high_hz`, where one is given."""
    heart = draw_heart_sound(np.random.default_rng(0), 4.0, True)[0] / 32768
    spectrum, frequency_hz = np.fft.rfft(heart), np.fft.rfftfreq(len(heart), 1 / RATE_HZ)
    spectrum[frequency_hz > (high_hz or RATE_HZ)] = 0
    return np.fft.irfft(spectrum, len(heart)).astype(np.float32)


@pytest.mark.parametrize("rumble", [0.0, 0.05, 6.0])
def test_rumble_neither_makes_a_muffled_sensor_nor_hides_one(rumble: float) -> None:
    time_s = np.arange(4 * RATE_HZ) / RATE_HZ
    swaying = (rumble * np.sin(2 * np.pi * 4 * time_s) * np.hanning(len(time_s))).astype(np.float32)
    for high_hz, muffled in ((None, False), (90, True)):
        found = measure(beating(high_hz) + swaying[: len(beating())], RATE_HZ)
        assert any("muffled" in words for words in warnings(found, PARAMS).values()) is muffled
    assert rumble < 1 or measure(beating() + swaying, RATE_HZ).bandwidth_hz < 20, "it decides where 99 % of all is"


GOOD = Quality(10, 0.5, -20, 0, 0, 400, 0, 20, 500)


@pytest.mark.parametrize(("fault", "word"), [
    ({"seconds": 0.8}, "0.80 s"), ({"peak": 0.001}, "quiet"), ({"dc": -0.3}, "DC offset of -0.30"),
    ({"clipped_share": 0.2}, "20.0% of the samples are clipped"), ({"heard_bandwidth_hz": 60}, "muffled"),
    ({"silent_share": 0.7}, "silent"), ({"contrast_db": 1.1}, "differ by 1.1 dB"),
])
def test_each_fault_has_its_warning_and_a_good_recording_none(fault: dict[str, float], word: str) -> None:
    assert warnings(GOOD, PARAMS) == {}
    [sentence] = warnings(Quality(**{**vars(GOOD), **fault}), PARAMS).values()
    assert word in sentence


@pytest.mark.parametrize("heartless", [
    tone(440), np.random.default_rng(0).normal(0, 0.2, 4 * RATE_HZ).astype(np.float32)], ids=["tone", "noise"])
def test_what_has_no_beats_is_said_to_have_none_and_a_heart_is_not(heartless: np.ndarray) -> None:
    heart = (draw_heart_sound(np.random.default_rng(0), 4.0, True)[0] / 32768).astype(np.float32)
    assert any("no heart sounds stand out" in words for words in warnings(measure(heartless, RATE_HZ), PARAMS).values())
    assert "no heart sounds" not in warnings(measure(heart, RATE_HZ), PARAMS)


@pytest.mark.real
def test_pascal_has_the_faults_that_were_counted_by_hand(real_pascal: Path) -> None:
    from heartml.audio import sound_files

    of_file = {path: sound_files.read(path) for path in sorted(real_pascal.rglob("*.wav"))}
    measured = {path: measure(samples.floats, samples.sample_rate_hz) for path, samples in of_file.items()}
    assert sum(q.seconds < 1.5 for q in measured.values()) == 34
    assert sum(q.clipped_share > 0.01 for q in measured.values()) == 11
    assert sum(q.peak < 0.02 for path, q in measured.items() if path.parent.name == "set_a") == 6
