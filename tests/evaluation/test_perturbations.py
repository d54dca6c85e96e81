"""Laws of the perturbations: a level is what it says, nothing is nothing, the same seed draws the same noise."""

from typing import get_args

import numpy as np
import pytest
from support.finished_project import draw_heart_sound

from heartml.core.config import Perturbation
from heartml.evaluation import perturbations

NOISES = sorted(kind for kind in perturbations.PERTURBATIONS if kind.endswith("_snr_db"))
NOTHING = {"white_snr_db": np.inf, "room_snr_db": np.inf, "speech_snr_db": np.inf, "friction_snr_db": np.inf,
           "gain_db": 0.0, "clipped_share": 0.0, "clock_share": 0.0}


def heart(rate_hz: int = 4000, samples: int = 13_001, seed: int = 0) -> np.ndarray:
    """A beating heart at any rate, an odd number of samples long."""
    pcm, _ = draw_heart_sound(np.random.default_rng(seed), samples / rate_hz + 1, True)
    time_s = np.arange(samples) / rate_hz
    return np.interp(time_s, np.arange(len(pcm)) / 4000, pcm / 32768).astype(np.float32)


HEART_HZ, LUNG_HZ = (25.0, 800.0), (60.0, 2500.0)


def spoilt(
    kind: str, level: float, waveform: np.ndarray, rate_hz: int = 4000, seed: int = 1, band_hz: tuple = HEART_HZ
) -> np.ndarray:
    return perturbations.PERTURBATIONS[kind].apply(waveform, rate_hz, level, np.random.default_rng(seed), band_hz)


def test_the_parameters_name_the_kinds_that_there_are() -> None:
    assert get_args(Perturbation) == tuple(perturbations.PERTURBATIONS)


@pytest.mark.parametrize("kind", NOTHING)
def test_nothing_changes_nothing(kind: str) -> None:
    before = heart()
    kept = before.copy()
    assert np.array_equal(spoilt(kind, NOTHING[kind], before), kept)
    assert np.array_equal(before, kept), "the recording itself was changed"


@pytest.mark.parametrize("kind", sorted(perturbations.PERTURBATIONS))
@pytest.mark.parametrize(("rate_hz", "samples"), [(4000, 13_001), (4000, 2_001), (44_100, 90_001), (2000, 7_777)])
def test_every_kind_gives_finite_samples_at_any_rate_and_length(kind: str, rate_hz: int, samples: int) -> None:
    level = {"clipped_share": 0.05, "clock_share": 0.02, "lowpass_hz": 200.0, "highpass_hz": 100.0}.get(kind, 10.0)
    found = spoilt(kind, level, heart(rate_hz, samples), rate_hz)
    assert found.dtype == np.float32 and np.isfinite(found).all()
    assert len(found) == (round(samples * 1.02) if kind == "clock_share" else samples)
    assert not np.array_equal(found, heart(rate_hz, samples))


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("rate_hz", [4000, 44_100])
@pytest.mark.parametrize("snr_db", [20.0, 0.0])
def test_a_signal_to_noise_ratio_is_what_it_says(kind: str, rate_hz: int, snr_db: float) -> None:
    clean = heart(rate_hz, 3 * rate_hz + 1)
    noise = perturbations.in_band(spoilt(kind, snr_db, clean, rate_hz).astype(float) - clean, rate_hz, HEART_HZ)
    found_db = 10 * np.log10(perturbations.signal_power(clean, rate_hz, HEART_HZ) / np.mean(noise**2))
    assert found_db == pytest.approx(snr_db, abs=0.1)


def test_a_knock_does_not_make_the_heart_louder() -> None:
    clean = heart(samples=80_000)
    knocked = clean.copy()
    knocked[4000:4100] += 3 * np.sin(np.arange(100) / 3)
    power = perturbations.signal_power(clean, 4000, HEART_HZ)
    assert perturbations.signal_power(knocked, 4000, HEART_HZ) == pytest.approx(power, rel=0.05)
    assert np.mean(knocked**2) > 1.2 * np.mean(clean**2)


@pytest.mark.parametrize("kind", NOISES)
def test_a_louder_noise_is_the_same_noise(kind: str) -> None:
    clean = heart()
    quiet, loud = (spoilt(kind, snr_db, clean).astype(float) - clean for snr_db in (20.0, 0.0))
    assert np.allclose(10 * quiet, loud, atol=1e-4 * np.abs(loud).max())
    other = spoilt(kind, 0.0, clean, seed=2) - clean
    assert abs(np.corrcoef(loud, other)[0, 1]) < 0.3


@pytest.mark.parametrize(("kind", "corner_hz", "kept_hz", "lost_hz"),
                         [("lowpass_hz", 200.0, 60.0, 500.0), ("highpass_hz", 120.0, 300.0, 45.0)])
def test_a_band_limit_keeps_one_side_and_loses_the_other(
    kind: str, corner_hz: float, kept_hz: float, lost_hz: float
) -> None:
    time_s = np.arange(12_001) / 4000

    def left(tone_hz: float) -> float:
        tone = np.sin(2 * np.pi * tone_hz * time_s).astype(np.float32)
        middle = spoilt(kind, corner_hz, tone)[2000:-2000]
        return float(np.abs(middle).max())

    assert left(kept_hz) > 0.95
    assert left(lost_hz) < 0.05
    assert left(corner_hz) == pytest.approx(np.sqrt(0.5), abs=0.02)


def test_clipping_cuts_that_share_of_the_samples() -> None:
    clean = heart()
    found = spoilt("clipped_share", 0.05, clean)
    assert np.mean(np.abs(clean) > np.abs(found).max()) == pytest.approx(0.05, abs=0.001)
    inside = np.abs(clean) <= np.abs(found).max()
    assert np.array_equal(found[inside], clean[inside])


def test_a_fast_clock_makes_a_tone_lower_and_longer() -> None:
    tone = np.sin(2 * np.pi * 102 * np.arange(16_000) / 4000).astype(np.float32)
    found = spoilt("clock_share", 0.02, tone)
    assert len(found) == 16_320
    assert np.fft.rfftfreq(len(found), 1 / 4000)[np.abs(np.fft.rfft(found)).argmax()] == pytest.approx(100, abs=0.2)


def test_the_ratio_is_that_of_the_band_of_the_organ() -> None:
    clean = heart(rate_hz=8000, samples=24_000)
    noise = [spoilt("white_snr_db", 0.0, clean, 8000, band_hz=band_hz) - clean for band_hz in (HEART_HZ, LUNG_HZ)]
    powers = [float(np.mean(np.square(one, dtype=np.float64))) for one in noise]
    assert powers[0] > 3 * powers[1], "a heart is in its own band, and a wider one holds more of the noise"
    in_lungs = perturbations.in_band(noise[1], 8000, LUNG_HZ)
    assert np.mean(in_lungs**2) == pytest.approx(perturbations.signal_power(clean, 8000, LUNG_HZ), rel=1e-3)
