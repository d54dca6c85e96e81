"""Laws of finding the same audio under two names, and what must be found among real recordings."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import resample_poly
from support.heart_sounds import RATE_HZ, heart_sound

from heartml.audio import near_duplicates as duplicates
from heartml.audio import sound_files
from heartml.audio.near_duplicates import Waveform, merge_groups, near_duplicates, search
from heartml.data import datasets


def pairs_of(waveforms: Sequence[np.ndarray], threshold: float = 0.9) -> set[tuple[int, int]]:
    found = near_duplicates([(w, RATE_HZ) for w in waveforms], threshold)
    return set(zip(found["i"], found["j"], strict=True))


def test_a_copy_is_found_though_cut_fainter_and_noisier() -> None:
    first = heart_sound(1)
    noise = np.random.default_rng(0).normal(0, 0.005, len(first)).astype(np.float32)
    copy = (0.3 * (first + noise))[RATE_HZ : 6 * RATE_HZ]
    sounds = [(samples, RATE_HZ) for samples in (heart_sound(2), first, copy, heart_sound(3))]
    found = near_duplicates(sounds, 0.9)
    assert found[["i", "j"]].to_numpy().tolist() == [[1, 2]]
    assert found.at[0, "lag_s"] == pytest.approx(1.0, abs=1e-3)
    assert found.at[0, "overlap_s"] == pytest.approx(5.0, abs=1e-2)


@pytest.mark.parametrize("exhaustive", [False, True])
def test_a_copy_is_found_wherever_it_was_cut(exhaustive: bool) -> None:
    """Its spectrum has other bins than that of the original, so its band starts at another frequency."""
    first = heart_sound(1, seconds=21)
    for start, end in ((11_679, 54_015), (22_896, 68_688), (21_296, 63_888), (8896, 26_688)):
        [found] = search([(first, RATE_HZ), (first[start:end], RATE_HZ)], [0.9], exhaustive=exhaustive)
        assert found["correlation"].tolist() == pytest.approx([1], abs=0.01), (start, end)
        assert found["lag_s"].tolist() == pytest.approx([start / RATE_HZ], abs=1e-3)


def test_gain_changes_no_correlation() -> None:
    first, second = heart_sound(1), np.roll(heart_sound(1), 900)
    plain = near_duplicates([(first, RATE_HZ), (second, RATE_HZ)], 0.9)
    louder = near_duplicates([(first, RATE_HZ), (second * np.float32(0.01), RATE_HZ)], 0.9)
    assert len(plain) == 1
    pd.testing.assert_frame_equal(plain, louder, atol=1e-5)


def test_a_copy_with_reversed_polarity_is_found_and_says_so() -> None:
    found = near_duplicates([(heart_sound(4), RATE_HZ), (-heart_sound(4), RATE_HZ)], 0.9)
    assert found["correlation"].tolist() == pytest.approx([-1], abs=1e-4)


def test_a_copy_at_another_rate_is_found() -> None:
    faster = resample_poly(heart_sound(5).astype(np.float64), 441, 40).astype(np.float32)
    found = near_duplicates([(heart_sound(5), RATE_HZ), (faster, 44_100)], 0.9)
    assert found["correlation"].tolist() == pytest.approx([1], abs=0.01)


def test_two_visits_of_one_heart_are_two_recordings() -> None:
    visits = [heart_sound(seed, person=7) for seed in range(6)]
    assert pairs_of(visits, 0.8) == set()


def test_hearts_that_beat_at_one_rate_are_different_hearts() -> None:
    assert pairs_of([heart_sound(seed, period_s=0.8) for seed in range(10, 20)], 0.8) == set()


@pytest.mark.parametrize(("hertz", "seconds"), [(640, 0.01), (50, 0.06)])
def test_one_loud_knock_on_another_is_no_copy(hertz: float, seconds: float) -> None:
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    knock = (30 * np.hanning(len(time_s)) * np.sin(2 * np.pi * hertz * time_s)).astype(np.float32)
    sounds = [heart_sound(seed) for seed in (21, 22)]
    for sound in sounds:
        sound[9000 : 9000 + len(knock)] += knock
    assert pairs_of(sounds) == set()


@pytest.mark.parametrize("hertz", [50, 60])
def test_hum_from_the_mains_is_no_copy(hertz: float) -> None:
    time_s = np.arange(8 * RATE_HZ) / RATE_HZ
    hum = [0.5 * np.sin(2 * np.pi * hertz * time_s + phase).astype(np.float32) for phase in (0, 1)]
    first, second = heart_sound(31) + hum[0], heart_sound(32) + hum[1]
    assert hum[0].std() > 3 * heart_sound(31).std()
    assert pairs_of([first, second, 0.5 * first[3000:]]) == {(0, 2)}


def test_one_common_beat_is_no_copy() -> None:
    """The last second of one is the first second of the other."""
    first, second = heart_sound(23), heart_sound(24)
    second[:4000] = first[-4000:]
    assert pairs_of([first, second]) == set()


def test_recordings_under_a_second_are_compared_as_a_whole() -> None:
    short = heart_sound(25)[:3700]
    assert pairs_of([short, short[:3500], heart_sound(26)[:3700]]) == {(0, 1)}


def test_silence_resembles_nothing() -> None:
    assert pairs_of([np.zeros(8000, np.float32), np.zeros(9000, np.float32), np.full(8000, 0.1, np.float32)]) == set()


@pytest.fixture(scope="module")
def crowd() -> list[Waveform]:
    """Thirty recordings of all lengths, with six copies among them."""
    rng = np.random.default_rng(5)
    sounds = [heart_sound(100 + k, seconds=rng.uniform(2, 12)) for k in range(24)]
    sounds += [sounds[k][rng.integers(0, 2000) :] * np.float32(0.5) for k in (0, 3, 7, 7, 11, 20)]
    return [(sound, RATE_HZ) for sound in sounds]


@pytest.mark.parametrize("compared", [[range(20)], [range(27), range(27, 30)], [range(25), range(20, 28)]], ids=str)
def test_the_pairs_of_sets_that_were_compared_are_left_out_and_all_others_found(
    crowd: list[Waveform], compared: list[range]
) -> None:
    everything = near_duplicates(crowd, 0.9)
    assert len(everything) == 7
    known = [any(i in ids and j in ids for ids in compared)
             for i, j in zip(everything["i"], everything["j"], strict=True)]
    assert sum(known) > 0 or compared == [range(20)]
    expected = everything[[not there for there in known]].reset_index(drop=True)
    pd.testing.assert_frame_equal(search(crowd, [0.9], compared)[0], expected, check_exact=False, atol=1e-6)


def test_what_was_compared_as_a_whole_is_not_compared_again(
    crowd: list[Waveform], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_compare_blocks", None)
    assert search(crowd, [0.9], [range(len(crowd))])[0].empty


@pytest.mark.thorough("half a minute")
def test_several_thresholds_have_each_the_pairs_of_a_search_of_their_own(crowd: list[Waveform]) -> None:
    for thresholds in ([0.9, 0.95], [0.95, 0.9], [0.5, 0.9, 0.99]):
        for threshold, found in zip(thresholds, search(crowd, thresholds), strict=True):
            pd.testing.assert_frame_equal(found, near_duplicates(crowd, threshold), check_exact=True)


def test_the_pairs_of_a_high_threshold_are_not_always_among_those_of_a_lower_one() -> None:
    """The second recording starts with the end of the first, and resembles all of it (.67) at another lag.

    At .9 that lag is a candidate too. It wins, since it overlaps longer, and does not hold; at .95 it is none.
    """
    first, noise = np.random.default_rng(1).normal(0, 0.1, (2, 20 * RATE_HZ))
    second = 0.78 * first + (1 - 0.78**2) ** 0.5 * noise
    cut = round(3.2 * RATE_HZ)
    second[:cut] = first[-cut:] + 0.2 * noise[:cut]
    waveforms = [(sound.astype(np.float32), RATE_HZ) for sound in (first, second)]
    low, high = search(waveforms, [0.9, 0.95])
    assert low.empty
    assert high["correlation"].tolist() == [pytest.approx(0.98, abs=0.01)] and high["lag_s"].tolist() == [16.8]


def test_threads_do_not_show(crowd: list[Waveform]) -> None:
    pd.testing.assert_frame_equal(near_duplicates(crowd, 0.9), near_duplicates(crowd, 0.9, threads=3), check_exact=True)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12), st.data())
def test_joined_groups_are_the_connected_ones_under_their_smallest_name(groups: list[str], data: st.DataObject) -> None:
    position = st.integers(0, len(groups) - 1)
    edges = data.draw(st.lists(st.tuples(position, position), max_size=8))
    joined = merge_groups(groups, pd.DataFrame(edges, columns=["i", "j"]))
    again = merge_groups(groups, pd.DataFrame(data.draw(st.permutations(edges)), columns=["i", "j"]))
    assert joined == again, "the order of the pairs shows"
    assert all(joined[i] == joined[j] for i, j in edges)
    assert all(new <= old for new, old in zip(joined, groups, strict=True))
    assert set(joined) <= set(groups)
    if not edges:
        assert joined == groups


def read(folder: Path) -> tuple[list[str], list[Waveform]]:
    paths = sorted(folder.rglob("*.wav"))
    samples = [sound_files.read(path) for path in paths]
    return [path.stem for path in paths], [(s.floats, s.sample_rate_hz) for s in samples]


@pytest.mark.thorough("tests/data/test_ingest_real.py finds them with all others")
@pytest.mark.real
def test_pascal_gives_up_its_copies(real_pascal: Path) -> None:
    names, waveforms = read(real_pascal)
    started = time.process_time()
    found = near_duplicates(waveforms, 0.9)
    assert time.process_time() - started < 60
    columns = zip(found["i"], found["j"], found["correlation"], strict=True)
    of_pair = {(names[i], names[j]): abs(r) for i, j, r in columns}
    assert of_pair["extrahls__201104021355", "murmur__201104021355"] == pytest.approx(1, abs=1e-3)
    assert of_pair["murmur__201106141148", "normal__201106141148"] > 0.95
    assert of_pair["normal__103_1305031931979_D1", "normal__146_1306778707532_D2"] == pytest.approx(1, abs=1e-3)
    assert of_pair["Bunlabelledtest__101_1305030823364_D", "normal_noisynormal_146_1306778707532_D"] > 0.95
    session = [r for pair, r in of_pair.items() if all("murmur__20110822" in name for name in pair)]
    assert len(session) >= 20
    assert max(session) > 0.98
    patients = {tuple(sorted(name.split("_")[-3] for name in pair)) for pair in of_pair if pair[0].count("_") >= 4}
    assert patients <= {("101", "146"), ("103", "146")}, "within set_b only the three ids of one person share audio"


@pytest.mark.real
def test_two_visits_of_one_real_child_are_two_recordings(real_circor: Path) -> None:
    """Children of CirCor who came a second time have two ids; their two visits are not near-duplicates."""
    same_person = datasets.load("circor").read(real_circor).same_person
    twins = {patient.split("-")[1] for same in same_person for patient in same}
    assert len(twins) == 58
    files = sorted(real_circor.rglob("*.wav"))
    chosen = [path for k, path in enumerate(files) if path.stem.split("_")[0] in twins or k % 6 == 0]
    samples = [sound_files.read(path) for path in chosen]
    assert len(samples) > 350
    assert near_duplicates([(s.floats, s.sample_rate_hz) for s in samples], 0.7, threads=2).empty


def test_how_many_comparisons_wait_at_once_changes_nothing_but_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    waveforms = [(heart_sound(seed), RATE_HZ) for seed in range(7)] + [(heart_sound(2)[RATE_HZ:], RATE_HZ)]
    whole = near_duplicates(waveforms, 0.9, threads=2)
    monkeypatch.setattr(duplicates, "_ROWS", 2)
    monkeypatch.setattr(duplicates, "_AT_ONCE", 3)
    pd.testing.assert_frame_equal(near_duplicates(waveforms, 0.9, threads=2), whole)
    assert whole[["i", "j"]].to_numpy().tolist() == [[2, 7]]
    taken: list[int] = []
    with ThreadPoolExecutor(2) as executor:
        answers = duplicates._in_turn(lambda item: item, (taken.append(k) or k for k in range(100)), executor)
        assert next(answers) == 0
        assert len(taken) == 3, "no more is made ready than may wait"
        assert list(answers) == list(range(1, 100))
