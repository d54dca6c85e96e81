"""Heart states over time: what is certain is decoded as it is, the cycle keeps its order, agreement is counted."""

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartml.core.schema import STATES
from heartml.models import segmentation
from heartml.models.heads.segment_features import DIASTOLE, FIRST_SYSTOLE, S1, S2
from heartml.models.segmentation import (
    TOLERANCE_S,
    UNKNOWN,
    Segmentation,
    by_loudness,
    decode,
    from_annotation,
    measure,
    summary,
)

RATE_HZ = 25.0
DURATIONS_S = (0.12, 0.16, 0.12, 0.40)       # a cycle of 0.8 s, 75 beats a minute
COLUMN = {"S1": S1, "systole": FIRST_SYSTOLE + 1, "S2": S2, "diastole": DIASTOLE}
CLASSES = 3


def beats(count: int = 12, shift_s: float = 0.0) -> Segmentation:
    durations = np.tile(DURATIONS_S, count)
    starts = shift_s + np.concatenate([[0.0], np.cumsum(durations)[:-1]])
    return Segmentation(starts, np.tile(np.arange(4), count), shift_s + float(durations.sum()))


def posteriors(truth: Segmentation, sure: float = 0.97) -> np.ndarray:
    """What a network would say that is right about every frame."""
    times = np.arange(0, truth.end_s, 1 / RATE_HZ)
    p = np.full((len(times), FIRST_SYSTOLE + CLASSES), (1 - sure) / (FIRST_SYSTOLE + CLASSES - 1))
    for t, state in enumerate(truth.at(times)):
        p[t, COLUMN[STATES[state]]] = sure
    return p


def test_what_is_certain_is_decoded_as_it_is() -> None:
    truth = beats()
    found = measure(decode(posteriors(truth), RATE_HZ), truth)
    assert found["frame_accuracy"] > 0.9           # frames of 40 ms cannot place every border
    assert found["s1_hits"] == found["s1_true"] == found["s1_found"] == 12
    assert found["s2_hits"] == found["s2_true"] == found["s2_found"] == 12
    assert found["heart_rate_error_per_min"] < 1.0


def test_a_stretch_of_noise_is_bridged_by_the_cycle() -> None:
    truth = beats()
    noisy = posteriors(truth)
    rng = np.random.default_rng(1)
    noisy[80:92] = rng.dirichlet(np.ones(noisy.shape[1]), 12)      # half a second
    assert measure(decode(noisy, RATE_HZ), truth)["s1_hits"] >= 11
    argmax = (noisy[:, [S1, COLUMN["systole"], S2, DIASTOLE]]).argmax(1)
    steps = np.diff(decode(noisy, RATE_HZ).states) % 4
    assert (steps == 1).all()                                   # the path keeps the order of the cycle
    assert (np.diff(argmax) % 4 > 1).any()                      # which the network alone does not


def test_states_come_where_the_recording_s_frames_lie() -> None:
    truth = beats()
    late = decode(posteriors(truth), RATE_HZ, first_s=3.0)
    np.testing.assert_allclose(late.starts_s[1:], decode(posteriors(truth), RATE_HZ).starts_s[1:] + 3.0)


def test_a_segmentation_agrees_with_itself_and_not_with_another_heart() -> None:
    truth = beats()
    same = measure(truth, truth)
    assert same["frame_accuracy"] == 1 and same["s1_hits"] == 12 and same["heart_rate_error_per_min"] == 0
    near, far = (measure(beats(shift_s=shift_s), truth) for shift_s in (0.05, 0.07))     # 60 ms, Schmidt et al. (2010)
    assert near["s1_hits"] == 12 and far["s1_hits"] == 0


def test_what_is_not_annotated_is_not_counted() -> None:
    truth = beats()
    bounds = [*truth.starts_s, truth.end_s]
    rows = [(bounds[i], bounds[i + 1], STATES[truth.states[i]]) for i in range(len(truth.states))]
    half = from_annotation(*zip(*[row for row in rows if row[1] < 4.9], strict=True))
    assert half.at(np.array([6.0]))[0] == UNKNOWN
    found = measure(truth, half)
    assert found["frame_accuracy"] == 1
    assert found["s1_found"] == found["s1_true"] == found["s1_hits"] < 12


def test_a_gap_within_an_annotation_is_unknown() -> None:
    found = from_annotation([0.0, 0.1, 2.0], [0.1, 0.3, 2.1], ["S1", "systole", "S1"])
    assert list(found.at(np.array([0.05, 0.2, 1.0, 2.05, 3.0]))) == [0, 1, UNKNOWN, 0, UNKNOWN]


def test_too_few_beats_tell_no_heart_rate() -> None:
    assert beats(3).heart_rate_per_min is None
    assert beats(4).heart_rate_per_min == pytest.approx(75)


@given(st.lists(st.floats(0, 3), max_size=8), st.lists(st.floats(0, 3), max_size=8))
def test_hits_are_the_largest_matching(found: list[float], true: list[float]) -> None:
    graph = networkx.Graph()
    graph.add_nodes_from(("f", i) for i in range(len(found)))
    graph.add_edges_from((("f", i), ("t", j)) for i, a in enumerate(sorted(found)) for j, b in enumerate(sorted(true))
                         if abs(a - b) <= TOLERANCE_S)
    largest = networkx.bipartite.maximum_matching(graph, [("f", i) for i in range(len(found))])
    assert segmentation._hits(np.sort(found), np.sort(true)) == len(largest) // 2


def test_the_baseline_hears_loud_beats_and_takes_the_shorter_interval_for_systole() -> None:
    truth, rate_hz = beats(), 50.0
    times = np.arange(0, truth.end_s, 1 / rate_hz)
    states = truth.at(times)
    frames = np.random.default_rng(2).normal(0, 0.05, (len(times), 48))
    frames[np.isin(states, [0, 2]), :8] += 3
    found = measure(by_loudness(frames, rate_hz), truth)
    assert found["s1_hits"] >= 10 and found["s2_hits"] >= 10
    silence = by_loudness(np.zeros((100, 48)), rate_hz)
    assert silence.heart_rate_per_min is None


def test_many_recordings_are_one_f1_and_quantiles_of_the_rate() -> None:
    truth = beats()
    found = summary([measure(truth, truth), measure(beats(shift_s=1), truth)])
    assert found["recordings"] == 2
    assert 0 < found["s1_f1"] < 1
    assert found["heart_rate_told"] == 1
    assert summary([]) == {}
