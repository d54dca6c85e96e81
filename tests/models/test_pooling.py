"""What a pooled vector must and must not depend on."""

from pathlib import Path

import numpy as np
import pytest

from heartml.core import config
from heartml.models import encoders, pooling
from heartml.models.pooling import Grid

RATE_HZ = 50.0
PARAMS = config.load(Path(__file__).parents[2] / "params.yaml")


def noise(seed: int, frames: int = 400, dim: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(frames, dim)).astype(np.float32)


def modulated(rate_hz: float, band: int, seconds: float = 12) -> np.ndarray:
    frames = np.zeros((int(seconds * RATE_HZ), 4), np.float32)
    frames[:, band] = np.sin(2 * np.pi * rate_hz * np.arange(len(frames)) / RATE_HZ)
    return frames


@pytest.mark.parametrize("name", pooling.POOLINGS)
@pytest.mark.parametrize("frame_rate_hz", [12.5, 50.0])
def test_every_length_gives_one_finite_size(name: str, frame_rate_hz: float) -> None:
    vectors = pooling.pool(name, [noise(n, frames=n) for n in (1, 2, 30, 500)], frame_rate_hz, Grid(3, 4))
    assert vectors.shape[0] == 4
    assert np.isfinite(vectors).all()


def test_the_control_averages_over_bands_and_the_mean_keeps_them() -> None:
    frames = noise(5, dim=12)
    swapped = frames.reshape(-1, 3, 4)[:, [2, 0, 1]].reshape(-1, 12)      # the same bands in another order
    control, other = (pooling.pool("average", [one], RATE_HZ, Grid(3, 4))[0] for one in (frames, swapped))
    np.testing.assert_allclose(control, frames.reshape(-1, 3, 4).mean((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(control, other, rtol=1e-4, atol=1e-6)
    kept, moved = (pooling.pool("mean", [one], RATE_HZ, Grid(3, 4))[0] for one in (frames, swapped))
    np.testing.assert_allclose(kept, frames.mean(0), rtol=1e-4, atol=1e-6)
    assert not np.allclose(kept, moved)


@pytest.mark.parametrize("name", ["logspec", "random_conv"])
def test_the_control_knows_the_bands_of_every_encoder(name: str) -> None:
    spec = encoders.spec(name, PARAMS)
    encoder = encoders.load(spec)
    grid = Grid.of({**encoders.describe(spec, encoder), "dim": encoder.dim})
    assert grid.bands * grid.channels == encoder.dim
    assert grid.bands == (48 if name == "logspec" else 6)
    tone = np.sin(2 * np.pi * 70 * np.arange(16000) / 4000) * np.sin(2 * np.pi * 1.5 * np.arange(16000) / 4000) ** 4
    frames = encoders.frames_of(encoder, spec, tone.astype(np.float32), 4000).astype(np.float32)
    averaged = frames.mean(1, keepdims=True) if name == "logspec" else frames.reshape(-1, 64, 6).mean(2)
    np.testing.assert_allclose(grid.averaged(frames), averaged, rtol=1e-4, atol=1e-5)


def test_pre_trained_frames_state_their_bands() -> None:
    assert Grid.of({"name": "mn04", "kind": "efficientat", "dim": 1536, "bands": 4}) == Grid(4, 384)
    assert Grid.of({"name": "amplitude", "dim": 2}) == Grid(1, 2)


def test_a_recording_played_twice_has_the_same_moments() -> None:
    once = noise(1)
    twice = np.concatenate([once, once])
    for name in ("moments", "statistics"):
        first, second = pooling.POOLINGS[name](once, RATE_HZ), pooling.POOLINGS[name](twice, RATE_HZ)
        np.testing.assert_allclose(first, second, atol=0.02)


def test_moments_are_those_of_each_band() -> None:
    frames = noise(2)
    mean, deviation, most = pooling.moments(frames, RATE_HZ).reshape(3, -1)
    for band in range(frames.shape[1]):
        values = [float(v) for v in frames[:, band]]
        assert mean[band] == pytest.approx(sum(values) / len(values))
        assert deviation[band] ** 2 == pytest.approx(sum((v - mean[band]) ** 2 for v in values) / len(values))
        assert most[band] == max(values)


@pytest.mark.parametrize("pool", [pooling.modulation, pooling.rhythm])
def test_level_does_not_change_modulation_or_rhythm(pool) -> None:
    frames = noise(3)
    np.testing.assert_allclose(pool(frames, RATE_HZ), pool(frames + 5, RATE_HZ), atol=1e-3)


@pytest.mark.parametrize(("rate_hz", "place"), [(0.75, 0), (1.25, 1), (4.0, 4), (11.5, 7), (16.5, 8)])
def test_a_modulation_shows_in_its_own_band_and_rate(rate_hz: float, place: int) -> None:
    power = pooling.modulation(modulated(rate_hz, band=2), RATE_HZ).reshape(9, 4)
    assert np.unravel_index(power.argmax(), power.shape) == (place, 2)


def test_rhythm_peaks_at_the_beat() -> None:
    period_s = 0.8
    beat = np.zeros((1000, 6), np.float32)
    beat[:: round(period_s * RATE_HZ)] = 1
    total = pooling.rhythm(beat, RATE_HZ).reshape(3, -1)[0]
    lags_s = 0.1 + 0.05 * np.arange(total.size)
    assert lags_s[total.argmax()] == pytest.approx(period_s, abs=0.026)


@pytest.mark.parametrize(("bands", "vector"), [(slice(0, 3), 1), (slice(3, 6), 2)])
def test_a_beat_of_the_low_bands_shows_in_the_second_vector_and_one_of_the_high_in_the_third(
    bands: slice, vector: int
) -> None:
    beat = np.zeros((1000, 6), np.float32)
    beat[::40, bands] = 1
    parts = pooling.rhythm(beat, RATE_HZ).reshape(3, -1)
    assert parts[vector].max() > 0.9
    assert not parts[3 - vector].any()


def test_rhythm_is_nothing_beyond_the_recordings_end() -> None:
    parts = pooling.rhythm(noise(5, frames=round(RATE_HZ)), RATE_HZ).reshape(3, -1)
    beyond = 0.1 + 0.05 * np.arange(parts.shape[1]) > 1
    assert not parts[:, beyond].any()
    assert parts[:, ~beyond].any()


def test_a_patient_is_the_same_in_any_order_of_its_recordings() -> None:
    vectors = noise(4, frames=9)
    unit = np.array([0, 1, 0, 2, 2, 1, 0, 0, 1])
    order = np.random.default_rng(0).permutation(9)
    mixed = pooling.per_unit(vectors[order], unit[order])
    np.testing.assert_allclose(pooling.per_unit(vectors, unit), mixed, atol=1e-6)
    one = pooling.per_unit(vectors, unit)[1].reshape(3, -1)
    np.testing.assert_allclose(one, [vectors[[1, 5, 8]].mean(0), vectors[[1, 5, 8]].max(0), vectors[[1, 5, 8]].min(0)])


def test_the_rows_of_a_unit_are_those_that_looking_through_all_of_them_finds() -> None:
    unit = np.random.default_rng(0).integers(0, 40, 200)
    unit[unit == 7] = 8                                      # nobody has number 7
    found = pooling.rows_of(unit)
    assert len(found) == unit.max() + 1
    for number, rows in enumerate(found):
        np.testing.assert_array_equal(rows, np.flatnonzero(unit == number))
