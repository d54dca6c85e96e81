"""The encoders without learnt weights: a tone of known pitch and loudness is where it has to be."""

from pathlib import Path

import numpy as np
import pytest
import torch

from heartml.core import config
from heartml.models.encoders import amplitude, logspec, random_conv

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml")
RATE_HZ = PARAMS.audio.sample_rate_hz
LOGSPEC = logspec.LogspecParams(bands=32, low_hz=25, high_hz=800, window_s=0.064, hop_s=0.02)
CENTRES_HZ = np.linspace(25, 800, 32)


def tone(hertz: float, loudness: float = 1.0, seconds: float = 1.0) -> torch.Tensor:
    """A sine as a batch of one: float32 [1, time]."""
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return torch.tensor(loudness * np.sin(2 * np.pi * hertz * time_s), dtype=torch.float32)[None]


@pytest.mark.parametrize("hertz", [50.0, 200.0, 600.0])
def test_the_band_of_a_tone_is_the_loudest_and_grows_with_its_energy(hertz: float) -> None:
    encoder = logspec.Logspec(PARAMS.audio, LOGSPEC)
    frames = encoder.encode(tone(hertz))[0].numpy()
    assert abs(CENTRES_HZ[frames.mean(axis=0).argmax()] - hertz) <= CENTRES_HZ[1] - CENTRES_HZ[0]
    louder = encoder.encode(tone(hertz, 10.0))[0].numpy()
    loudest = frames.mean(axis=0).argmax()
    np.testing.assert_allclose((louder - frames)[:, loudest], np.log(100), atol=0.01)


def test_digital_silence_is_finite_and_the_floor() -> None:
    frames = logspec.Logspec(PARAMS.audio, LOGSPEC).encode(torch.zeros(1, RATE_HZ))[0]
    torch.testing.assert_close(frames, torch.full_like(frames, float(np.log(logspec.FLOOR))))


@pytest.mark.parametrize(("hertz", "loudness"), [(100.0, 1.0), (250.0, 0.25), (500.0, 0.5)])
def test_frequency_and_amplitude_of_the_strongest_tone_are_read_off(hertz: float, loudness: float) -> None:
    params = amplitude.AmplitudeParams(window_s=0.1, hop_s=0.05)
    encoder = amplitude.Amplitude(PARAMS.audio, params)
    frames = encoder.encode(tone(hertz, loudness) + tone(hertz / 2, loudness / 10))[0].numpy()
    np.testing.assert_allclose(frames[:, 0] * 1000, hertz, atol=RATE_HZ / encoder.width / 2)
    np.testing.assert_allclose(frames[:, 1], loudness, rtol=0.05)


@pytest.mark.parametrize("seconds", [0.01, 0.5, 1.0, 1.013, 3.3])
def test_there_are_as_many_frames_as_whole_windows_and_at_least_one(seconds: float) -> None:
    sound = tone(100, seconds=seconds)
    for encoder in (logspec.Logspec(PARAMS.audio, LOGSPEC),
                    amplitude.Amplitude(PARAMS.audio, amplitude.AmplitudeParams(window_s=0.1, hop_s=0.05)),
                    random_conv.RandomConv(PARAMS.audio, LOGSPEC, random_conv.RandomConvParams(channels=3, seed=1))):
        frames = encoder.encode(sound)
        assert frames.shape == (1, encoder.frames_in(sound.shape[1]), encoder.dim)


def test_random_filters_follow_from_their_seed_alone_and_see_no_mean_level() -> None:
    def encoder(seed: int) -> random_conv.RandomConv:
        return random_conv.RandomConv(PARAMS.audio, LOGSPEC, random_conv.RandomConvParams(channels=5, seed=seed))

    sound = tone(100) + tone(300)
    first, again, other = (encoder(seed).encode(sound) for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert (first - other).abs().max() > 0.1
    torch.testing.assert_close(encoder(1).filters.mean((2, 3)), torch.zeros(5, 1), atol=1e-7, rtol=0)


def test_what_does_not_fit_the_sample_rate_is_refused_by_name() -> None:
    high = LOGSPEC.model_copy(update={"high_hz": RATE_HZ})
    short = LOGSPEC.model_copy(update={"hop_s": 0.1 / RATE_HZ})
    with pytest.raises(ValueError, match=r"logspec\.high_hz: .* above half of audio\.sample_rate_hz"):
        logspec.make(PARAMS.audio, {"logspec": high})
    with pytest.raises(ValueError, match="less than a sample"):
        logspec.make(PARAMS.audio, {"logspec": short})
    with pytest.raises(ValueError, match="low_hz does not lie below high_hz"):
        logspec.LogspecParams(bands=4, low_hz=500, high_hz=100, window_s=0.1, hop_s=0.1)
