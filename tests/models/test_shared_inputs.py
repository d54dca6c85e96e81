"""Several models predict the same recordings: frames and pooled vectors are made once, and no prediction changes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support import tiny_models

from heartml.models import encoders, pooling
from heartml.models.fitted_model import Model, ModelError
from heartml.models.shared_inputs import SharedInputs

UNITS = ["ann", "bob", "ann"]


@pytest.fixture
def waveforms() -> list[tuple[np.ndarray, int]]:
    kinds = ("murmur", "clean", "noise")
    return [(tiny_models.draw_sound(kind, 900 + seed).floats, tiny_models.RATE_HZ) for seed, kind in enumerate(kinds)]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often frames were made, and vectors pooled."""
    counts = {"frames": 0, "vectors": 0}
    frames_of, each = encoders.frames_of, pooling.each

    def count_frames(*arguments: object) -> object:
        counts["frames"] += 1
        return frames_of(*arguments)

    def count_vectors(name: str, frames: Sequence[np.ndarray], rate_hz: float, grid: pooling.Grid) -> object:
        counts["vectors"] += 1
        return each(name, frames, rate_hz, grid)

    monkeypatch.setattr(encoders, "frames_of", count_frames)
    monkeypatch.setattr(pooling, "each", count_vectors)
    return counts


def test_models_with_the_same_encoder_share_what_they_hear(
    fitted: dict[str, Path], waveforms: list[tuple[np.ndarray, int]], counted: dict[str, int]
) -> None:
    model = Model.load(fitted["simulated-murmur"])
    alone = model.predict_audio(waveforms, UNITS)
    assert counted == {"frames": 3, "vectors": 1}
    shared = SharedInputs(waveforms, UNITS)
    for _ in range(11):
        found = model.predict_shared(shared)
        np.testing.assert_array_equal(found.probabilities, alone.probabilities)
        np.testing.assert_array_equal(found.recording_probabilities, alone.recording_probabilities)
    assert counted == {"frames": 6, "vectors": 2}


def test_an_encoder_with_other_numbers_is_another_encoder(
    fitted: dict[str, Path], waveforms: list[tuple[np.ndarray, int]], counted: dict[str, int]
) -> None:
    first = Model.load(fitted["simulated-murmur"])
    made = first.encoder_specs["logspec"]
    sections = {"logspec": {**made["sections"]["logspec"], "high_hz": 400}}
    other = Model(first.assignment_name, first.members, first.ensemble, {"logspec": {**made, "sections": sections}})
    shared = SharedInputs(waveforms, UNITS)
    one, two = first.predict_shared(shared), other.predict_shared(shared)
    np.testing.assert_array_equal(two.probabilities, other.predict_audio(waveforms, UNITS).probabilities)
    assert np.abs(one.probabilities - two.probabilities).max() > 1e-6
    assert shared.feature_set(first.encoder_specs) is shared.feature_set(first.encoder_specs)
    assert shared.feature_set(first.encoder_specs) is not shared.feature_set(other.encoder_specs)


def test_recordings_apart_are_units_of_their_own_with_the_same_vectors(
    fitted: dict[str, Path], waveforms: list[tuple[np.ndarray, int]], counted: dict[str, int]
) -> None:
    model = Model.load(fitted["simulated-murmur"])
    feature_set = SharedInputs(waveforms, UNITS).feature_set(model.encoder_specs)
    spec = model.members[0].spec
    together, apart = feature_set.inputs(spec, np.arange(3)), feature_set.one_unit_each().inputs(spec, np.arange(3))
    np.testing.assert_array_equal(together, apart)
    assert feature_set.one_unit_each().unit.tolist() == [0, 1, 2]
    assert counted["vectors"] == 1


def test_nothing_to_hear_is_refused(fitted: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="no recordings"):
        Model.load(fitted["simulated-murmur"]).predict_audio([], [])
