"""Fingerprints of recordings: they say which pairs may have nearly the same waveform, so that few need be compared.

Waveforms `[time]` with their rates arrive; codes of 256 bits leave, one for each *anchor*; and from the codes of many
recordings, pairs of recordings that are *candidates*. Whether a candidate is a near-duplicate is decided elsewhere
(heartml/audio/near_duplicates.py).

An anchor is a sample whose amplitude is the largest within a tenth of a second before and after it: most are in heart
sounds. Copies have their anchors at the same places, wherever they were cut. From each anchor on, 1.6 seconds of the
25-400 Hz band (zeros after the end of the recording) are projected on 256 random directions, and the signs are the
code. Gain does not change it, and polarity does not, because the anchor's own sample counts as positive. The share of
bits that differ is the angle between two windows over pi (Charikar, Similarity estimation techniques from rounding
algorithms, STOC 2002).

Two windows are compared if they have some 16 of the bits in common in one of 24 tables (locality-sensitive hashing:
Indyk and Motwani, STOC 1998). With more recordings a table uses more bits, so that the number of windows that meet by
chance grows little.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heartml.audio.spectra import band_limited

Codes = npt.NDArray[np.uint64]        # [anchors, WORDS]
Positions = npt.NDArray[np.int64]

RATE_HZ, BAND_HZ = 2000, (25.0, 400.0)
WINDOW_S = 1.6
EVERY = 2                             # of a window's samples one in so many is used; the band has nothing above 400 Hz
ANCHOR_S = 0.1                        # an anchor is the largest sample so far to both sides
INSIDE_S = 0.4                        # a window has at least so much of the recording before its end
FAINT = 1e-3                          # of the largest sample: what is fainter is no anchor
MOST_OF_ONE = 2                       # windows of one recording that are compared for one key; hum has hundreds
LEAST_S = 2.75                        # shorter recordings can be copies with too little in common for a window
BITS, WORDS = 256, 4
TABLES, KEY_BITS = 24, 16
FULL_BITS = 5                         # a key has about two to the power of this many windows in a large collection
MOST_BITS = 52                        # windows of PASCAL's copies differ in 34 of the 256 bits at most
_SEED = 7
_CHECKED_AT_ONCE = 1 << 20            # pairs of windows


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """The codes of a recording, [anchors, WORDS], none where it is silent; and its length."""

    codes: Codes
    seconds: float

    @property
    def sufficient(self) -> bool:
        """Whether a copy of the recording is found by its codes; otherwise it has to be compared with every other."""
        return self.seconds >= LEAST_S


def fingerprint(waveform: npt.NDArray[np.float32], rate_hz: int) -> Fingerprint:
    """The fingerprint of a recording [time]."""
    return Fingerprint(_codes(waveform, rate_hz), len(waveform) / rate_hz)


def _codes(waveform: npt.NDArray[np.float32], rate_hz: int) -> Codes:
    signal = band_limited(waveform, rate_hz, RATE_HZ, BAND_HZ)
    anchors = _anchors(signal)
    if not len(anchors):
        return np.zeros((0, WORDS), np.uint64)
    size = round(WINDOW_S * RATE_HZ)
    padded = np.concatenate([signal, np.zeros(size, np.float32)])
    windows = padded[anchors[:, None] + np.arange(0, size, EVERY)]
    projected = (windows * np.sign(signal[anchors])[:, None]) @ _directions()
    return np.packbits(projected > 0, axis=1).view(np.uint64)


def _anchors(signal: npt.NDArray[np.float32]) -> Positions:
    """Positions of the anchors, but for those too near to the end of the signal."""
    from scipy.ndimage import maximum_filter1d

    size = np.abs(signal)
    largest = (size == maximum_filter1d(size, 2 * round(ANCHOR_S * RATE_HZ) + 1)) & (size > FAINT * size.max())
    return np.flatnonzero(largest[: max(0, len(signal) - round(INSIDE_S * RATE_HZ))])


@functools.cache
def _directions() -> npt.NDArray[np.float32]:
    samples = len(range(0, round(WINDOW_S * RATE_HZ), EVERY))
    return np.random.default_rng(_SEED).standard_normal((samples, BITS)).astype(np.float32)


def candidates(found: Sequence[Fingerprint]) -> Iterator[Positions]:
    """Pairs of recordings that may be near-duplicates: for each table an array [pairs, 2] of positions i < j.

    A pair may come from several tables. Work and memory grow with the number of windows, and with the number of pairs
    of windows that are alike.
    """
    owner = np.repeat(np.arange(len(found)), [len(one.codes) for one in found])
    every = np.concatenate([np.zeros((0, WORDS), np.uint64), *(one.codes for one in found)])
    key_bits = max(KEY_BITS, len(every).bit_length() - FULL_BITS)
    for bits in _tables(key_bits):
        pairs = _unique(_alike(every, owner, len(found), _keys(every, bits)))
        yield np.stack(np.divmod(pairs, max(1, len(found))), axis=1)


def _tables(key_bits: int) -> list[npt.NDArray[np.int64]]:
    rng = np.random.default_rng(_SEED)
    return [rng.permutation(BITS)[:key_bits] for _ in range(TABLES)]


def _keys(codes: Codes, bits: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """The chosen bits of each code, as one number."""
    keys = np.zeros(len(codes), np.uint64)
    for place, bit in enumerate(bits):
        keys |= (codes[:, bit // 64] >> np.uint64(bit % 64) & np.uint64(1)) << np.uint64(place)
    return keys


def _alike(codes: Codes, owner: Positions, owners: int, keys: npt.NDArray[np.uint64]) -> Iterator[Positions]:
    """Pairs i < j of owners of windows with equal keys whose codes differ in at most `MOST_BITS`, as i * owners + j."""
    order = np.lexsort((owner, keys))
    order = order[_first_of_each(keys[order], owner[order])]
    keys = keys[order]
    first, step = np.arange(len(keys) - 1), 1
    while len(first):      # all that have the same key `step` places further on
        first = first[first + step < len(keys)]
        first = first[keys[first] == keys[first + step]]
        for part in np.array_split(first, len(first) // _CHECKED_AT_ONCE + 1):
            left, right = order[part], order[part + step]
            other = owner[left] != owner[right]
            left, right = left[other], right[other]
            near = np.bitwise_count(codes[left] ^ codes[right]).sum(axis=1) <= MOST_BITS
            one, other_one = owner[left[near]], owner[right[near]]
            yield np.minimum(one, other_one) * owners + np.maximum(one, other_one)
        step += 1


def _first_of_each(keys: npt.NDArray[np.uint64], owner: Positions) -> npt.NDArray[np.bool_]:
    """Which of the sorted windows are among the first `MOST_OF_ONE` of their owner with their key."""
    same = (keys[MOST_OF_ONE:] == keys[:-MOST_OF_ONE]) & (owner[MOST_OF_ONE:] == owner[:-MOST_OF_ONE])
    return np.concatenate([np.ones(min(MOST_OF_ONE, len(keys)), bool), ~same])


def _unique(parts: Iterable[Positions]) -> Positions:
    """The different numbers among all parts; joined now and then, because a copy has many windows in common."""
    found = np.zeros(0, np.int64)
    waiting: list[Positions] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) > _CHECKED_AT_ONCE:
            found, waiting = np.unique(np.concatenate([found, *waiting])), []
    return np.asarray(np.unique(np.concatenate([found, *waiting])))
