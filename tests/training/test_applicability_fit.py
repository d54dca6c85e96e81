"""The checks that a model learns about its input: what they refer, and what they leave alone."""

import numpy as np
import pytest
from support.tiny_models import PARAMS, draw_sound

from heartml.audio import quality
from heartml.core.config import ApplicabilityParams, Params
from heartml.data.simulation import children, lungs, other_sounds, visits
from heartml.evaluation.perturbations import PERTURBATIONS
from heartml.models import encoders
from heartml.models.applicability import TRAINING, UNLIKE, Applicability
from heartml.training import applicability_fit

SPEC = encoders.spec("logspec", PARAMS)
ENCODER = encoders.load(SPEC)
AS_JSON = {**SPEC.to_json(), "frame_rate_hz": ENCODER.frame_rate_hz, "dim": ENCODER.dim}
FEW = PARAMS.model_copy(update={"applicability": ApplicabilityParams(
    referred_share=0.02, made_up_sounds=5, simulated_children=2, trees=30)})


def heard(waveform: np.ndarray) -> np.ndarray:
    return encoders.frames_of(ENCODER, SPEC, waveform, 4000).astype(np.float32)


def hearts(first: int, count: int) -> list[np.ndarray]:
    """One simulated recording of each of `count` children."""
    found = [visits.record(visits.draw_visits(5, children.draw_child(5, n))[0], 5.0)[0]
             for n in range(first, first + count)]
    return [np.asarray(one.pcm / 32768, np.float32) for one in found]


def fit_to(waveforms: list[np.ndarray], params: Params = FEW) -> tuple[Applicability, list]:
    return applicability_fit.fit([heard(w) for w in waveforms], np.arange(len(waveforms)) % 4,
                                 [quality.measure(w, 4000) for w in waveforms], AS_JSON, params)


@pytest.fixture(scope="module")
def fitted() -> tuple[Applicability, list]:
    return fit_to(hearts(0, 32))


def checks_of(checks: Applicability, waveforms: list[np.ndarray]) -> list[set[str]]:
    found = checks.judge([heard(w) for w in waveforms], 50.0, [quality.measure(w, 4000) for w in waveforms])
    return [{one.check for one in of_recording} for of_recording in found]


def test_hearts_of_other_children_are_inside(fitted: tuple[Applicability, list]) -> None:
    checks, findings = fitted
    assert sum(map(bool, findings)) <= 3, "out of fold, each of two limits leaves about one of these outside"
    assert sum(map(bool, checks_of(checks, hearts(100, 16)))) <= 4


def test_what_is_no_heart_is_outside(fitted: tuple[Applicability, list]) -> None:
    time = np.arange(24_000) / 4000
    sounds = [np.sin(2 * np.pi * hz * time).astype(np.float32) / 2 for hz in (50, 440)]
    sounds += [other_sounds.make(kind, 6, np.random.default_rng(99)) for kind in other_sounds.OTHER_SOUNDS]
    found = checks_of(fitted[0], sounds)
    assert all(found), found
    assert sum("no_heart" in one for one in found) >= len(found) - 2


def test_a_muffled_or_drowned_heart_cannot_be_judged(fitted: tuple[Applicability, list]) -> None:
    own = hearts(200, 8)
    muffled, drowned = (
        checks_of(fitted[0], [PERTURBATIONS[kind].apply(w, 4000, level, np.random.default_rng(n), (25, 800))
                              for n, w in enumerate(own)])
        for kind, level in (("lowpass_hz", 150.0), ("white_snr_db", -8.0)))
    assert sum(map(bool, muffled)) >= 7 and sum("narrow" in one for one in muffled) >= 4
    assert sum(bool({"noisy", "no_heart"} & one) for one in drowned) >= 6


def test_another_sensor_is_unlike_and_not_called_no_heart(fitted: tuple[Applicability, list]) -> None:
    others = [draw_sound("clean", seed, 6.0).floats for seed in range(6)]      # pure beats without any chest or room
    found = checks_of(fitted[0], others)
    assert all(found)
    assert any(UNLIKE in one for one in found)


def test_a_validated_source_is_inside_and_a_hum_is_still_not(fitted: tuple[Applicability, list]) -> None:
    checks = fitted[0]
    [training] = checks.references
    assert training.name == TRAINING
    strict = Applicability(checks.conditions, (training.within(0.001, training.most_unusual),), checks.signal)
    own = hearts(300, 6)
    assert all(checks_of(strict, own))
    both = Applicability(checks.conditions, (*strict.references, training), checks.signal)
    assert sum(map(bool, checks_of(both, own))) <= 1
    hum = other_sounds.make("hum", 6, np.random.default_rng(5))
    assert checks_of(both, [hum]) == [{"no_heart"}]


def test_the_same_recordings_give_the_same_bytes_and_survive_storing() -> None:
    sizes = {"made_up_sounds": 1, "simulated_children": 1, "trees": 5}
    tiny = FEW.model_copy(update={"applicability": FEW.applicability.model_copy(update=sizes)})
    waveforms = hearts(0, 10)
    one, again = (fit_to(waveforms, tiny)[0] for _ in range(2))
    first, second = one.arrays(), again.arrays()
    assert {k: v.tobytes() for k, v in first.items()} == {k: v.tobytes() for k, v in second.items()}
    loaded = Applicability.load(again.to_json(), second)
    asked = [heard(w) for w in (*waveforms[:3], other_sounds.make("speech", 4, np.random.default_rng(1)))]
    assert loaded.judge(asked, 50.0) == again.judge(asked, 50.0)


def test_a_recording_of_any_length_is_judged(fitted: tuple[Applicability, list]) -> None:
    for seconds in (0.05, 0.3, 1.0):
        short = hearts(0, 1)[0][: int(4000 * seconds)]
        assert "short" in checks_of(fitted[0], [short])[0]


def test_of_lungs_a_heart_is_outside_and_other_peoples_lungs_are_inside() -> None:
    params = FEW.for_organ("lung")
    spec = encoders.spec("logspec", params)
    encoder = encoders.load(spec)

    def lungs_of(first: int, count: int) -> list[np.ndarray]:
        return [np.asarray(lungs.record(5, lungs.draw_patient(5, n), 5.0)[n % 4].pcm / 32768, np.float32)
                for n in range(first, first + count)]

    def frames(waveforms: list[np.ndarray]) -> list[np.ndarray]:
        return [encoders.frames_of(encoder, spec, w, 4000).astype(np.float32) for w in waveforms]

    known = lungs_of(0, 32)
    as_json = {**spec.to_json(), "frame_rate_hz": encoder.frame_rate_hz, "dim": encoder.dim}
    checks, _ = applicability_fit.fit(frames(known), np.arange(32) % 4, [quality.measure(w, 4000) for w in known],
                                      as_json, params, "lung")
    others = [other_sounds.make(kind, 6, np.random.default_rng(99)) for kind in other_sounds.of_no("lung")]
    found = checks.judge(frames([*others, *hearts(300, 2)]), encoder.frame_rate_hz)
    assert sum(map(bool, found)) >= len(found) - 1
    assert {one.words for of_one in found for one in of_one if one.check == "no_lung"} == {"no lung sounds found"}
    assert sum(map(bool, checks.judge(frames(lungs_of(100, 10)), encoder.frame_rate_hz))) <= 3
    assert Applicability.load(checks.to_json(), checks.arrays()).organ == "lung"
