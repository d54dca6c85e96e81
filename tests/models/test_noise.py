"""Noise on frames is what the encoder makes of a noisy waveform; and it is added only where it was asked for."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.finished_project import draw_heart_sound

from heartml.audio import preprocessing
from heartml.core import config
from heartml.evaluation import perturbations
from heartml.models import encoders
from heartml.models.heads import Targets
from heartml.models.heads.augmentation import Crops
from heartml.models.heads.network_training import Recipe, centred
from heartml.models.heads.noise import Noise, add_noise_power, loudness, noise_spectra, with_noise
from heartml.training import search_space

FILE = Path(__file__).parents[2] / "params.yaml"
PARAMS = config.load(FILE)
SPEC = encoders.spec("logspec", PARAMS)
BASE = {**search_space.fixed_hyperparameters(PARAMS.search, "sequence"), "rate": 1e-3}
DRAWS = 12


@pytest.fixture(scope="module")
def heart() -> NDArray[np.float32]:
    return (draw_heart_sound(np.random.default_rng(0), 4.0, True)[0] / 32768).astype(np.float32)


def frames_of(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    return centred(encoders.frames_of(encoders.load(SPEC), SPEC, waveform, 4000).astype(np.float32))


@pytest.mark.parametrize("snr_db", [20.0, 10.0, 0.0])
def test_noise_on_frames_is_noise_on_the_waveform(heart: NDArray[np.float32], snr_db: float) -> None:
    clean, rng = frames_of(heart), np.random.default_rng(1)
    noisy = perturbations.PERTURBATIONS["white_snr_db"].apply
    on_waveform = np.stack([frames_of(noisy(heart, 4000, snr_db, np.random.default_rng(n), (25, 800)))
                            for n in range(DRAWS)])
    power = np.full((DRAWS, clean.shape[1]), loudness(clean, 50.0) * 10 ** (-snr_db / 10), np.float32)
    added = add_noise_power(np.repeat(clean[None], DRAWS, 0), power, rng)
    on_frames = np.stack([centred(one) for one in added])
    apart = on_waveform - on_frames
    assert np.abs(apart.mean((0, 1))).mean() < 0.06           # the spectrum
    assert np.abs(apart.mean((0, 2))).mean() < 0.10           # the course in time
    assert np.abs(apart.mean(0)).mean() < 1.5 * np.sqrt(2 / DRAWS) * 0.8 * on_waveform.std(0).mean()
    assert on_frames.std(0).mean() == pytest.approx(on_waveform.std(0).mean(), rel=0.2)
    assert np.abs(on_waveform.mean(0) - clean).mean() > 3 * np.abs(apart.mean((0, 1))).mean()


def test_how_loud_a_heart_is_does_not_follow_a_knock(heart: NDArray[np.float32]) -> None:
    knocked = heart.copy()
    knocked[8000:8200] += np.random.default_rng(0).normal(0, 20 * heart.std(), 200).astype(np.float32)
    for waveform in (heart, knocked):
        prepared = preprocessing.prepare(waveform, 4000, PARAMS.audio)
        frames = encoders.frames_of(encoders.load(SPEC), SPEC, waveform, 4000)
        in_band = perturbations.signal_power(prepared, 4000, (25, 800))
        expected = in_band * 2000 / 775      # of the band, spread over all of 2 kHz
        assert 10 * np.log10(loudness(frames, 50.0) / expected) == pytest.approx(0, abs=0.6)


def crops_of(frames: NDArray[np.float32], noise: Noise | None) -> Crops:
    targets = Targets(np.zeros(1, int), 1, np.zeros(1, int))
    return Crops.of([frames], targets, 0.0, 2.0, noise)


def test_a_share_of_the_crops_is_noisy_the_others_stay_and_no_crops_mean_moves(heart: NDArray[np.float32]) -> None:
    crops = np.random.default_rng(0).normal(size=(400, 20, 8)).astype(np.float32)
    kept = crops.copy()
    Noise(0.3, 0.0, 20.0).add(crops, np.ones(400, np.float32), np.random.default_rng(1))
    same = (crops == kept).all((1, 2))
    assert 1 - same.mean() == pytest.approx(0.3, abs=0.08)
    np.testing.assert_allclose(crops.mean((1, 2)), kept.mean((1, 2)), atol=1e-5)
    assert np.isfinite(crops).all()
    louder, quieter = (crops_of(frames_of(heart), Noise(1.0, snr_db, snr_db)) for snr_db in (0.0, 60.0))
    drawn = [one.draw(np.zeros(16, int), np.random.default_rng(2))[0] for one in (louder, quieter)]
    plain = crops_of(frames_of(heart), Noise(1.0, 200.0, 200.0)).draw(np.zeros(16, int), np.random.default_rng(2))[0]
    assert np.abs(drawn[0] - plain).mean() > 0.5
    assert np.abs(drawn[1] - plain).mean() < 0.1


def test_the_same_generator_draws_the_same_noise(heart: NDArray[np.float32]) -> None:
    crops = crops_of(frames_of(heart), Noise(0.5, 0.0, 30.0))
    drawn = [crops.draw(np.zeros(8, int), np.random.default_rng(seed))[0].tobytes() for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_without_a_share_nothing_is_drawn_for_noise() -> None:
    assert Recipe.of({**BASE, "noise_share": 0.0}).noise() is None
    wanted = {"noise_share": 0.4, "noise_snr_low_db": 5.0, "noise_snr_high_db": 9.0}
    assert Recipe.of({**BASE, **wanted}).noise() == Noise(0.4, 5.0, 9.0)


def test_other_recordings_and_their_order_do_not_change_a_recordings_noise(heart: NDArray[np.float32]) -> None:
    frames, other = frames_of(heart), frames_of(heart[: len(heart) // 2])
    noise = Noise(0.5, 0.0, 30.0)
    one = with_noise([frames, other], ["a", "b"], ["child", "child"], noise, 50.0)
    two = with_noise([other, other, frames], ["x", "b", "a"], ["other", "child", "child"], noise, 50.0)
    np.testing.assert_array_equal(one[0], two[2])
    np.testing.assert_array_equal(one[1], two[1:][0])
    assert len(two[1:]) == 2 and one[0].shape == frames.shape and one[0].dtype == np.float32
    assert not np.allclose(two[0], two[1], atol=0.1)


def test_one_units_recordings_share_ratio_and_colour_and_units_do_not(heart: NDArray[np.float32]) -> None:
    silent = np.full((400, 48), -20.0, np.float32)
    silent[::50] = 0.0                                          # what noise is measured against
    names = [str(n) for n in range(60)]
    drawn = with_noise([silent] * 60, names, [str(n // 2) for n in range(60)], Noise(0.5, 0.0, 30.0), 50.0)
    added = np.array([one.mean(0) for one in drawn])
    pairs = added.reshape(30, 2, 48)
    assert np.abs(pairs[:, 0] - pairs[:, 1]).mean() < 0.2
    levels_db = 10 / np.log(10) * pairs.mean((1, 2))
    assert 15 < np.ptp(levels_db) < 35
    heart_db = 10 / np.log(10) * np.log(loudness(silent, 50.0))
    assert (levels_db < heart_db + 3).all() and (levels_db > heart_db - 45).all()


def test_noise_is_white_or_falls_with_frequency() -> None:
    drawn = noise_spectra(2000, 48, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(1), 1)
    assert (np.diff(drawn, axis=1) <= 0).all()
    assert (drawn == 1).all(1).mean() == pytest.approx(1 / 3, abs=0.05)
