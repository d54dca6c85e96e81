"""Rates that share no large divisor with the encoders' rate: the same samples as torchaudio's, in little memory."""

import tracemalloc

import numpy as np
import pytest
import torch
from torchaudio.functional import resample

from heartml.audio import preprocessing
from heartml.core.config import AudioParams

AUDIO = AudioParams(sample_rate_hz=4000, highpass_hz=20.0, resample_filter_width=6)


@pytest.mark.parametrize("rate_hz", [4001, 3999, 11127, 501])
def test_the_samples_are_torchaudios(rate_hz: int) -> None:
    wave = np.random.default_rng(rate_hz).normal(size=int(1.3 * rate_hz)).astype(np.float32)
    found = preprocessing.resample(wave, rate_hz, AUDIO)
    expected = resample(torch.from_numpy(wave), rate_hz, 4000, lowpass_filter_width=6).numpy()
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_memory_does_not_grow_with_the_square_of_the_rate() -> None:
    wave = np.random.default_rng(1).normal(size=480_000).astype(np.float32)
    tracemalloc.start()
    assert len(preprocessing.resample(wave, 399_989, AUDIO)) == -(-480_000 * 4000 // 399_989)
    assert tracemalloc.get_traced_memory()[1] < 400e6
    tracemalloc.stop()
