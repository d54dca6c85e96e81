"""Fingerprints find every copy that comparing all pairs finds, and leave out nearly all other pairs."""

import io
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.signal import butter, resample_poly, sosfilt
from support.heart_sounds import RATE_HZ, heart_sound

from heartml.audio import fingerprints, near_duplicates
from heartml.audio.fingerprints import Fingerprint, fingerprint
from heartml.audio.spectra import band_limited

COUNT = 12
Sound = tuple[np.ndarray, int]


def as_mp3(sound: np.ndarray) -> Sound:
    faster = resample_poly(sound.astype(np.float64), 4, 1)
    encoded = io.BytesIO()
    soundfile.write(encoded, faster / np.abs(faster).max() * 0.8, 4 * RATE_HZ, format="MP3")
    encoded.seek(0)
    return soundfile.read(encoded, dtype="float32")


def noisy(sound: np.ndarray) -> Sound:
    noise = np.random.default_rng(3).normal(0, 1, len(sound))
    return (sound + 0.1 * sound.std() * noise).astype(np.float32), RATE_HZ


COPIES: dict[str, Callable[[np.ndarray], Sound]] = {
    "cut to five seconds": lambda sound: (sound[5000:25_000], RATE_HZ),
    "late by a fraction of a sample": lambda sound: (resample_poly(sound, 7, 1)[3::7].astype(np.float32), RATE_HZ),
    "another rate": lambda sound: (resample_poly(sound, 441, 40).astype(np.float32), 44_100),
    "clipped": lambda sound: (np.clip(sound, *np.quantile(sound, [0.01, 0.99])), RATE_HZ),
    "filtered": lambda sound: (sosfilt(butter(2, [30, 300], "bandpass", fs=RATE_HZ, output="sos"), sound), RATE_HZ),
    "MP3": as_mp3, "noise at 20 dB": noisy, "upside down and fainter": lambda sound: (-0.01 * sound, RATE_HZ),
}


def named(sounds: list[Sound]) -> set[tuple[int, int]]:
    found = fingerprints.candidates([fingerprint(np.asarray(wave, np.float32), rate) for wave, rate in sounds])
    return {(int(i), int(j)) for pairs in found for i, j in pairs}


@pytest.mark.parametrize("kind", COPIES)
def test_every_copy_is_a_candidate_and_hardly_anything_else(kind: str) -> None:
    sounds = [(heart_sound(seed), RATE_HZ) for seed in range(COUNT)]
    found = named(sounds + [COPIES[kind](sound) for sound, _ in sounds])
    copies = {(k, COUNT + k) for k in range(COUNT)}
    assert copies <= found
    assert len(found - copies) <= 2 * COUNT, "of 276 pairs"


def test_what_is_found_by_fingerprints_is_what_comparing_every_pair_finds() -> None:
    rng = np.random.default_rng(5)
    sounds = [heart_sound(100 + k, seconds=rng.uniform(1, 12)) for k in range(30)]
    sounds += [sounds[k][rng.integers(0, len(sounds[k]) // 5) :] for k in range(20)]
    waveforms = [(sound, RATE_HZ) for sound in sounds]
    every = near_duplicates.search(waveforms, [0.9, 0.95], exhaustive=True)
    quick = near_duplicates.search(waveforms, [0.9, 0.95])
    assert len(every[0]) == 20
    for found, expected in zip(quick, every, strict=True):
        pd.testing.assert_frame_equal(found, expected, check_exact=False, atol=1e-6)


def test_below_the_least_threshold_every_pair_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "fingerprint", None)
    waveforms = [(heart_sound(seed), RATE_HZ) for seed in (1, 1, 2)]
    assert near_duplicates.near_duplicates(waveforms, 0.8)[["i", "j"]].to_numpy().tolist() == [[0, 1]]
    with pytest.raises(TypeError):
        near_duplicates.near_duplicates(waveforms, near_duplicates.LEAST_THRESHOLD)


def test_gain_polarity_and_silence() -> None:
    sound = heart_sound(1)
    codes = fingerprint(sound, RATE_HZ).codes
    assert codes.shape[1] == fingerprints.WORDS and 8 <= len(codes) <= 80
    np.testing.assert_array_equal(fingerprint(np.float32(-8) * sound, RATE_HZ).codes, codes)
    assert len(fingerprint(np.zeros(20_000, np.float32), RATE_HZ).codes) == 0
    assert not fingerprint(sound[: int(2.5 * RATE_HZ)], RATE_HZ).sufficient


@pytest.mark.parametrize(("before", "length", "other"), [(2, 1.4, 1.5), (1.5, 1.5, 1.7), (4, 0.8, 4.2)])
@pytest.mark.parametrize("level", [0, 1e-3])
def test_a_sound_near_the_end_is_found_behind_other_silence(
    before: float, length: float, other: float, level: float
) -> None:
    rng = np.random.default_rng(1)
    for seed in range(6):
        sound = heart_sound(seed)[: int(length * RATE_HZ)]
        both = [np.concatenate([level * rng.normal(size=int(quiet * RATE_HZ)), sound]).astype(np.float32)
                for quiet in (before, other)]
        waveforms = [(one, RATE_HZ) for one in both]
        expected = near_duplicates.search(waveforms, [0.9], exhaustive=True)[0]
        assert len(near_duplicates.search(waveforms, [0.9])[0]) == len(expected)


def test_many_windows_of_hum_are_not_compared_each_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    time_s = np.arange(30 * RATE_HZ) / RATE_HZ
    hums = [np.sin(2 * np.pi * 50 * time_s + phase).astype(np.float32) for phase in np.arange(20)]
    prints = [fingerprint(hum, RATE_HZ) for hum in hums]
    checked: list[int] = []
    count = np.bitwise_count
    monkeypatch.setattr(np, "bitwise_count", lambda codes: checked.append(len(codes)) or count(codes))
    assert {(int(i), int(j)) for pairs in fingerprints.candidates(prints) for i, j in pairs} == {
        (i, j) for i in range(20) for j in range(i + 1, 20)}, "each pair, by few windows"
    windows = sum(len(one.codes) for one in prints)
    assert sum(checked) < fingerprints.TABLES * windows**2 / 2 / 10


def test_more_recordings_use_longer_keys_and_the_checks_are_the_same_in_any_portion(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [len(bits) for bits in fingerprints._tables(20)] == [20] * fingerprints.TABLES
    rng = np.random.default_rng(0)
    some = [Fingerprint(rng.integers(0, 2**63, (4, 4), dtype=np.uint64), 9.0) for _ in range(200)]
    some += [Fingerprint(one.codes[:2], 9.0) for one in some[:50]]
    whole = [pairs.tolist() for pairs in fingerprints.candidates(some)]
    monkeypatch.setattr(fingerprints, "_CHECKED_AT_ONCE", 7)
    assert [pairs.tolist() for pairs in fingerprints.candidates(some)] == whole
    assert {(int(i), int(j)) for pairs in whole for i, j in pairs} == {(k, 200 + k) for k in range(50)}


def test_a_band_of_a_sound_at_another_rate_keeps_what_is_in_it() -> None:
    time_s = np.arange(4 * RATE_HZ) / RATE_HZ
    tones = {hertz: np.sin(2 * np.pi * hertz * time_s) for hertz in (10, 100, 600)}
    band = band_limited(sum(tones.values()).astype(np.float32), RATE_HZ, 2000, (25, 400))
    assert len(band) == 8000
    np.testing.assert_allclose(band[500:-500], tones[100][::2][500:-500], atol=0.05)
