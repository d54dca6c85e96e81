"""Near-duplicates are searched for once: what ingest has compared, validation does not compare or read again."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import soundfile
from support.heart_sounds import RATE_HZ, heart_sound
from support.workspaces import ROOT

from heartml.audio import fingerprints, sound_files
from heartml.audio import near_duplicates as duplicates
from heartml.core import config, paths
from heartml.data import cache

PARAMS = config.load(ROOT / "params.yaml")
INGEST, VALIDATE = PARAMS.ingest.duplicate_correlation, PARAMS.validate_.near_duplicate_correlation
SEARCHED = cache.thresholds(PARAMS.ingest, PARAMS.validate_)


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Eight recordings; `e` is a copy of `a`, `h` of `b`, `g` of `f`."""
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(tmp_path / "cache"))
    sounds = {name: heart_sound(seed, seconds=5) for seed, name in enumerate("abcdf")}
    sounds |= {"e": sounds["a"][900:], "h": 0.5 * sounds["b"][500:], "g": sounds["f"][:-700]}
    files = {name: tmp_path / f"{name}.wav" for name in sorted(sounds)}
    for name, file in files.items():
        soundfile.write(file, sounds[name], RATE_HZ, subtype="PCM_16")
    return files


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every pair of recordings that is compared, by name, as often as it is."""
    found: list[tuple[str, str]] = []
    names: list[str] = []
    waveforms, compare = cache._waveforms, duplicates._compare_blocks

    def noted_waveforms(sources: Sequence[Path]) -> Sequence[duplicates.Waveform]:
        names[:] = [path.stem for path in sources]
        return waveforms(sources)

    def noted_blocks(signals, left, right, memberships, limits):  # type: ignore[no-untyped-def]
        found.extend((names[min(i, j)], names[max(i, j)]) for i in left for j in right
                     if (j < i or left is not right) and memberships[i].isdisjoint(memberships[j]))
        return compare(signals, left, right, memberships, limits)

    monkeypatch.setattr(cache, "_waveforms", noted_waveforms)
    monkeypatch.setattr(duplicates, "_compare_blocks", noted_blocks)
    return found


def some(recordings: dict[str, Path], names: str) -> dict[str, Path]:
    return {name: recordings[name] for name in names}


def pairs(sources: dict[str, Path], threshold: float) -> list[tuple[str, str]]:
    found = cache.near_duplicates(sources, threshold, SEARCHED, 1)
    return list(zip(found["recording_id_a"], found["recording_id_b"], strict=True))


def test_what_ingest_has_compared_is_not_read_again_in_validation(
    recordings: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pairs(recordings, INGEST) == [("a", "e"), ("b", "h"), ("f", "g")]
    monkeypatch.setattr(sound_files, "read", None)
    monkeypatch.setattr(duplicates, "search", None)
    assert pairs(recordings, VALIDATE) == [("a", "e"), ("b", "h"), ("f", "g")]
    assert pairs(some(recordings, "abcde"), VALIDATE) == [("a", "e")], "without those that ingest refused"


def test_validation_compares_candidates_of_different_data_sets_and_nothing_else(
    recordings: dict[str, Path], compared: list[tuple[str, str]]
) -> None:
    assert pairs(some(recordings, "abcd"), INGEST) == []
    assert pairs(some(recordings, "efgh"), INGEST) == [("f", "g")]
    within = {*compared}
    assert ("f", "g") in within
    del compared[:]
    assert pairs(recordings, VALIDATE) == [("a", "e"), ("b", "h"), ("f", "g")]
    assert {("a", "e"), ("b", "h")} <= {*compared} <= {(a, b) for a in "abcd" for b in "efgh"}
    assert len({*compared}) == len(compared), "each once"


def test_a_new_recording_is_compared_with_all_others_and_these_are_not_compared_again(
    recordings: dict[str, Path], compared: list[tuple[str, str]]
) -> None:
    pairs(some(recordings, "abcd"), INGEST)
    del compared[:]
    assert pairs(some(recordings, "abcde"), INGEST) == [("a", "e")]
    assert ("a", "e") in compared and all(second == "e" for _, second in compared)


def test_a_fingerprint_is_computed_once_and_a_damaged_store_is_no_loss(
    recordings: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    compute = fingerprints.fingerprint
    monkeypatch.setattr(fingerprints, "fingerprint", lambda *sound: made.append(len(sound[0])) or compute(*sound))
    pairs(some(recordings, "abcd"), INGEST)
    assert len(made) == 4
    assert pairs(recordings, INGEST) == [("a", "e"), ("b", "h"), ("f", "g")]
    assert len(made) == 8, "of the four new ones"
    for path in (paths.cache() / "ingest").glob("pairs-*.json"):
        path.unlink()
    assert pairs(recordings, INGEST) == [("a", "e"), ("b", "h"), ("f", "g")]
    assert len(made) == 8
    first = sorted((paths.cache() / "ingest").glob("fingerprints-*/*.safetensors"))[0]
    first.write_bytes(first.read_bytes()[:100])
    for path in (paths.cache() / "ingest").glob("pairs-*.json"):
        path.unlink()
    assert pairs(recordings, INGEST) == [("a", "e"), ("b", "h"), ("f", "g")]
    assert len(made) == 12, "those of the damaged file"


def test_what_is_found_does_not_depend_on_the_order_of_the_work(
    recordings: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for names in ("abc", "cdef", "gh", "ah"):
        pairs(some(recordings, names), INGEST)
    step_by_step = [cache.near_duplicates(recordings, threshold, SEARCHED, 1) for threshold in SEARCHED]
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(tmp_path / "other"))
    at_once = [cache.near_duplicates(recordings, threshold, SEARCHED, 1) for threshold in SEARCHED]
    for first, second in zip(step_by_step, at_once, strict=True):
        pd.testing.assert_frame_equal(first, second)


def test_other_thresholds_are_another_search(recordings: dict[str, Path]) -> None:
    pairs(recordings, INGEST)
    strict = cache.near_duplicates(recordings, 0.9999, (0.9999,), 1)
    assert len(strict) < 3
    assert len(list((paths.cache() / "ingest").glob("pairs-*.json"))) == 2


def test_one_file_holds_the_pairs_of_the_project(recordings: dict[str, Path]) -> None:
    pairs(some(recordings, "abcd"), INGEST)
    pairs(recordings, VALIDATE)
    assert len(list((paths.cache() / "ingest").glob("pairs-*.json"))) == 1
