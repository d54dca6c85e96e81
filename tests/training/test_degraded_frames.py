"""Frames made worse stand for sounds made worse: held against the same change of the waveform, made by other code."""

import numpy as np
import pytest
from support.tiny_models import PARAMS, draw_sound

from heartml.data.simulation import children, visits
from heartml.evaluation.perturbations import PERTURBATIONS
from heartml.models import encoders
from heartml.models.applicability.heart_evidence import evidence
from heartml.models.heads.noise import loudness
from heartml.training import degraded_frames
from heartml.training.degraded_frames import Bands

SPEC = encoders.spec("logspec", PARAMS)
ENCODER = encoders.load(SPEC)
BANDS = Bands(np.linspace(25, 800, 48), ENCODER.frame_rate_hz, (110, 280), (100, 250))


def heard(waveform: np.ndarray) -> np.ndarray:
    return encoders.frames_of(ENCODER, SPEC, waveform, 4000).astype(np.float32)


def simulated_heart() -> np.ndarray:
    recording = visits.record(visits.draw_visits(5, children.draw_child(5, 1))[0], 8.0)[0]
    return np.asarray(recording.pcm / 32768, np.float32)


def rhythm(frames: np.ndarray) -> float:
    """How strongly the lowest bands repeat: the highest peak of their autocorrelation."""
    return float(evidence(frames, 50.0).reshape(6, -1)[0, 4])


class Fixed:
    """A generator whose draws are given; what is not given is drawn as ever."""

    def __init__(self, **draws: object) -> None:
        self._draws, self._rng = draws, np.random.default_rng(0)

    def __getattr__(self, name: str) -> object:
        return (lambda *_, **__: self._draws[name]) if name in self._draws else getattr(self._rng, name)


@pytest.mark.parametrize("corner_hz", [150, 250])
def test_a_narrow_band_is_that_of_a_filtered_sound(corner_hz: float) -> None:
    waveform = draw_sound("noise", 1, 6.0).floats
    filtered = heard(PERTURBATIONS["lowpass_hz"].apply(waveform, 4000, corner_hz, np.random.default_rng(0), (25, 800)))
    draws = Fixed(random=0.1, integers=4, uniform=np.log(corner_hz))
    changed = degraded_frames.narrow(heard(waveform), BANDS, draws)      # type: ignore[arg-type]
    difference_db = 10 / np.log(10) * (changed.mean(0) - filtered.mean(0))
    passed = difference_db[BANDS.centres_hz < 2 * corner_hz]      # up to the level, which is that of all frequencies
    assert np.abs(passed - np.median(passed)).max() < 1
    assert (changed.mean(0) - heard(waveform).mean(0))[-8:].max() < -3      # what the filter stops is gone


def test_noise_keeps_the_level_and_hides_the_beats() -> None:
    frames = heard(simulated_heart())
    rng, rhythms = np.random.default_rng(0), []
    for _ in range(8):
        worse = degraded_frames.noisy(frames, BANDS, rng)
        rhythms.append(rhythm(worse))
        assert np.isfinite(worse).all() and worse.shape == frames.shape
        assert loudness(worse, 50.0) == pytest.approx(loudness(frames, 50.0), rel=1e-3)
        assert (worse - frames).mean() > 0
    assert np.mean(rhythms) < 0.85 * rhythm(frames)


def test_an_equaliser_changes_each_band_by_one_gain() -> None:
    frames = heard(draw_sound("clean", 3).floats)
    gains = degraded_frames.equalised(frames, np.random.default_rng(4)) - frames
    assert gains.std(0).max() < 1e-4 and gains[0].std() > 0.5
