"""What is said of a murmur: the words of the bedside, in their order, and none that is not known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartml.core.config import PredictParams
from heartml.core.tasks import GROUPS, TASKS
from heartml.inference.murmur_words import MurmurFeature, describe, loudest_location

PARAMS = PredictParams(least_confidence=0.6, loudest_lead=0.1)
PLACES = [("AV", 0.4), ("PV", 0.55), ("TV", 0.9), ("MV", 0.7)]


def feature(name: str, decision: str, confidence: float = 0.8) -> MurmurFeature:
    return MurmurFeature(name, decision, confidence, {decision: confidence}, "a model")


FIVE = [feature("systolic_timing", "Holosystolic"), feature("systolic_shape", "Plateau", 0.7),
        feature("systolic_grading", "II/VI", 0.61), feature("systolic_pitch", "High"),
        feature("systolic_quality", "Harsh", 0.6)]


def test_a_murmur_is_described_as_at_the_bedside() -> None:
    said = describe(FIVE, PLACES, PARAMS)
    assert said.phrase == "systolic, holosystolic, plateau, grade II/VI, high, harsh; loudest at TV"
    assert said.phrase_with_confidence == (
        "systolic, holosystolic (80%), plateau (70%), grade II/VI (61%), high (80%), harsh (60%); loudest at TV")


def test_a_feature_below_the_confidence_is_not_said_but_kept() -> None:
    unsure = [feature("systolic_timing", "Early-systolic"), feature("systolic_shape", "Diamond", 0.59)]
    said = describe(unsure, [], PARAMS)
    assert said.phrase == "systolic, early systolic"
    assert [one.decision for one in said.features] == ["Early-systolic", "Diamond"]


def test_what_no_model_knows_is_not_said() -> None:
    assert describe([], [], PARAMS).phrase == ""
    assert describe([feature("systolic_pitch", "Low", 0.2)], [("AV", 0.9)], PARAMS).phrase == ""
    assert describe([], PLACES, PARAMS).phrase == "loudest at TV"
    assert describe(FIVE[4:], [], PARAMS).phrase == "systolic, harsh"


def test_each_phase_is_named_before_its_features() -> None:
    both = [*FIVE[:1], feature("diastolic_timing", "Early-diastolic"), feature("diastolic_grading", "I/IV")]
    assert describe(both, [], PARAMS).phrase == "systolic, holosystolic, diastolic, early diastolic, grade I/IV"


def test_the_loudest_place_is_named_only_where_it_is_clear() -> None:
    assert loudest_location(PLACES, 0.2) == "TV"
    assert loudest_location(PLACES, 0.21) is None
    assert loudest_location([("AV", 0.9)], 0.0) is None, "nothing to compare with"
    assert loudest_location([(None, 0.9), ("AV", 0.1)], 0.0) is None, "nobody knows where the first one was"
    assert loudest_location([], 0.1) is None
    assert loudest_location([("AV", 0.9), ("AV", 0.1), ("MV", 0.7)], 0.1) == "MV", "of one place: averaged"


@given(st.lists(st.tuples(st.sampled_from(["AV", "PV", "TV", "MV", None]), st.floats(0, 1)), max_size=8), st.randoms())
def test_the_order_of_the_recordings_does_not_move_the_loudest_place(
    heard: list[tuple[str | None, float]], random: "object"
) -> None:
    shuffled = list(heard)
    random.shuffle(shuffled)      # type: ignore[attr-defined]
    assert loudest_location(heard, 0.1) == loudest_location(shuffled, 0.1)


@pytest.mark.parametrize("name", GROUPS["descriptors"])
def test_every_class_has_words_without_the_publishers_spelling(name: str) -> None:
    words = [feature(name, decision).words for decision in TASKS[name].classes]
    assert len(set(words)) == len(words)
    for word in words:
        assert word.startswith("grade ") or (word == word.lower() and "-" not in word)
