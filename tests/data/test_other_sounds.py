"""Made-up sounds that are no heart: every kind is a family of different sounds, and the same draw is the same sound."""

import numpy as np
import pytest

from heartml.data.simulation import other_sounds


@pytest.mark.parametrize("kind", other_sounds.OTHER_SOUNDS)
def test_a_kind_is_a_family_of_finite_sounds_of_the_length_asked(kind: str) -> None:
    drawn = [other_sounds.make(kind, 2.5, np.random.default_rng(seed)) for seed in range(4)]
    assert {len(one) for one in drawn} == {10_000}
    assert all(np.isfinite(one).all() and 0 < np.abs(one).max() <= 1 for one in drawn)
    assert len({one.tobytes() for one in drawn}) == 4
    np.testing.assert_array_equal(drawn[2], other_sounds.make(kind, 2.5, np.random.default_rng(2)))


@pytest.mark.parametrize("seconds", [0.5, 0.50037, 1.2345])
def test_any_length_can_be_made(seconds: float) -> None:
    for kind in other_sounds.OTHER_SOUNDS:
        assert abs(len(other_sounds.make(kind, seconds, np.random.default_rng(1))) - 4000 * seconds) <= 1


def test_hum_stands_at_a_mains_frequency_and_its_harmonics() -> None:
    sound = other_sounds.make("hum", 4, np.random.default_rng(3))
    peak_hz = int(np.abs(np.fft.rfft(sound)).argmax()) / 4
    assert peak_hz % 50 == pytest.approx(0, abs=0.3) or peak_hz % 60 == pytest.approx(0, abs=0.3)
