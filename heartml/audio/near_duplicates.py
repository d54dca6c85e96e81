"""Near-duplicates: pairs of recordings that have nearly the same waveform where they overlap.

Waveforms `[time]` with their rates arrive, a table of pairs leaves. Fingerprints say which pairs are worth comparing
(heartml/audio/fingerprints.py); very short recordings are compared with all. The comparison has two steps.

*Coarse*: the 30-75 Hz band of every recording is demodulated to 50 complex samples per second. Its amplitude is
limited, so that a click does not decide. A pair is correlated at every lag (by FFT), normalised by the energy of the
overlap. The phase is part of it, so two hearts that beat at one rate do not look alike.

*Fine*: each candidate is verified between 25 and 800 Hz, around the lag that was found. A heart repeats itself, so one
beat that matches another beat is no proof. The overlap is therefore at least three seconds (or four fifths of a shorter
recording), and a longer overlap wins over a slightly higher correlation. Hum correlates at any lag, so the lag that was
found must explain far more than the lags beside it.
"""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.fft

from heartml.audio import fingerprints
from heartml.audio.fingerprints import Fingerprint
from heartml.audio.spectra import Complexes, Floats, band_limited, spectrum
from heartml.core.system.progress import track

T = TypeVar("T")
R = TypeVar("R")
Waveform = tuple[npt.NDArray[np.float32], int]
Candidate = tuple[int, int, tuple[float | None, ...]]     # i < j, and the lag in s to verify for each threshold

LEAST_THRESHOLD = 0.85        # from this correlation on, fingerprints find what comparing every pair finds
COARSE_HZ, COARSE_BAND_HZ = 50, (30.0, 75.0)
COARSE_LIMIT = 3.0            # times the median amplitude
FINE_HZ, FINE_BAND_HZ = 2000, (25.0, 800.0)
MIN_OVERLAP_S = 3.0           # several beats
MIN_OVERLAP_SHARE = 0.8       # of the shorter recording, where this is less than MIN_OVERLAP_S
COARSE_MARGIN = 0.25          # a candidate may correlate this much less in the coarse band
RIVAL_S = (0.06, 0.2)         # lags to compare with the best one: past the heart sound, before the next one
RIVAL_MARGIN = 0.5            # the best lag leaves at most this share of the energy unexplained that those leave
_ROWS = 64                    # recordings in one block, to fit the processor's cache
_FINE_KEPT = 256              # recordings whose fine signal waits for another partner
_AT_ONCE = 4096               # pairs of blocks that wait for a thread
_TINY = 1e-12
_COLUMNS = {"i": "int64", "j": "int64", "correlation": "float64", "lag_s": "float64", "overlap_s": "float64"}


def near_duplicates(waveforms: Sequence[Waveform], threshold: float, *, threads: int = 1) -> pd.DataFrame:
    """Pairs of recordings with a correlation of at least `threshold` over their overlap: `search` for one threshold."""
    return search(waveforms, [threshold], threads=threads)[0]


def search(
    waveforms: Sequence[Waveform],
    thresholds: Sequence[float],
    compared: Iterable[Collection[int]] = (),
    *,
    threads: int = 1,
    known: Sequence[Fingerprint] | None = None,
    exhaustive: bool = False,
) -> list[pd.DataFrame]:
    """For each threshold the pairs of recordings with at least that correlation over their overlap.

    Each pair is compared once, for all thresholds. Each threshold still gets what a search for it alone would find.
    That is not always a part of what a lower one finds: the lag to verify is chosen among the lags that pass the
    threshold, and more of them pass a lower one. (Of PASCAL's pairs at .95, seven would differ.)

    Args:
        waveforms: (samples [time], sample_rate_hz) each; may read on access: every one is read once, candidates again.
        thresholds: of the absolute normalised correlation, 0 to 1.
        compared: sets of positions within which every pair has been compared before; these pairs are left out.
        threads: how many compare at the same time.
        known: the fingerprint of each recording; `None`: they are computed.
        exhaustive: compare every pair, also those that fingerprints leave out. So it is for thresholds below
            `LEAST_THRESHOLD`, at which fingerprints would miss pairs.

    Returns:
        A table for each threshold, in their order. Columns i < j (positions), correlation (negative: polarity
        reversed), lag_s (start of j on the time axis of i), overlap_s; in the order of i, j.
    """
    memberships = _memberships(len(waveforms), compared)
    limits = [threshold - COARSE_MARGIN for threshold in thresholds]
    by_code = not exhaustive and min(thresholds, default=1.0) >= LEAST_THRESHOLD
    with ThreadPoolExecutor(threads) as executor:
        found = (_by_fingerprint if by_code else _exhaustive)(waveforms, memberships, limits, executor, known)
        candidates = sorted(found, key=itemgetter(0, 1))
    rows: list[list[tuple[float, ...]]] = [[] for _ in thresholds]
    fine = functools.lru_cache(maxsize=_FINE_KEPT)(lambda position: _fine(*waveforms[position]))
    groups = [(i, list(of_first)) for i, of_first in groupby(candidates, key=itemgetter(0))]
    for i, of_first in track(groups, "verifying", len(groups)):
        first = fine(i)
        for _, j, lags in of_first:
            matches = _matches(first, fine(j), lags, thresholds)
            for own, match in zip(rows, matches, strict=True):
                if match:
                    own.append((i, j, *match))
    return [pd.DataFrame(own, columns=list(_COLUMNS)).astype(_COLUMNS) for own in rows]


def fingerprint_all(waveforms: Sequence[Waveform], executor: ThreadPoolExecutor) -> list[Fingerprint]:
    """The fingerprint of each recording, in their order."""
    def one(position: int) -> Fingerprint:
        return fingerprints.fingerprint(*waveforms[position])

    return list(track(executor.map(one, range(len(waveforms))), "reading recordings", len(waveforms)))


def _memberships(count: int, sets: Iterable[Collection[int]]) -> list[frozenset[int]]:
    """For each of `count` positions the numbers of the sets that contain it."""
    found: list[set[int]] = [set() for _ in range(count)]
    for number, positions in enumerate(sets):
        for position in positions:
            found[position].add(number)
    return [frozenset(own) for own in found]


def _matches(
    first: Floats, second: Floats, lags: Sequence[float | None], thresholds: Sequence[float]
) -> list[tuple[float, float, float] | None]:
    """`_verify` at the candidate lag of each threshold; None where there is no lag or no match. Equal lags once."""
    least: dict[float, float] = {}
    for lag_s, threshold in zip(lags, thresholds, strict=True):
        if lag_s is not None:
            least[lag_s] = min(threshold, least.get(lag_s, threshold))
    found = {lag_s: _verify(first, second, lag_s, threshold) for lag_s, threshold in least.items()}
    return [
        match if lag_s is not None and (match := found[lag_s]) and abs(match[0]) >= threshold else None
        for lag_s, threshold in zip(lags, thresholds, strict=True)
    ]


def merge_groups(groups: Sequence[str], pairs: pd.DataFrame) -> list[str]:
    """Merge the groups of near-duplicates; every member of a merged group gets the smallest of its names.

    Args:
        groups: the group of each recording [n].
        pairs: columns i, j: positions in `groups`.

    >>> merge_groups(["d", "a", "c", "c"], pd.DataFrame({"i": [0], "j": [3]}))      # d and c become one
    ['c', 'a', 'c', 'c']
    """
    parent = {name: name for name in groups}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for i, j in zip(pairs["i"], pairs["j"], strict=True):
        first, second = sorted((root(groups[i]), root(groups[j])))
        parent[second] = first
    return [root(name) for name in groups]


def _coarse(waveform: Floats, rate_hz: int) -> Complexes:
    """[time] -> complex baseband of COARSE_BAND_HZ at COARSE_HZ, amplitude limited, energy 1 (0 for silence)."""
    found, bin_hz = spectrum(waveform, rate_hz, COARSE_HZ)
    low, high = (round(f / bin_hz) for f in COARSE_BAND_HZ)
    band = np.zeros(round(COARSE_HZ / bin_hz), np.complex64)
    taken = found[low:high]
    band[: len(taken)] = taken * np.hanning(high - low)[: len(taken)].astype(np.float32)
    signal = scipy.fft.ifft(band)[: max(1, len(waveform) * COARSE_HZ // rate_hz)]
    off_hz = low * bin_hz - COARSE_BAND_HZ[0]      # the nearest bin; recordings of other lengths have another one
    signal = signal * np.exp(2j * np.pi * off_hz / COARSE_HZ * np.arange(len(signal)))
    amplitude = np.abs(signal)
    signal = signal * np.minimum(1, COARSE_LIMIT * np.median(amplitude) / np.maximum(amplitude, _TINY))
    return np.asarray(_unit_energy(signal), np.complex64)


def _fine(waveform: Floats, rate_hz: int) -> Floats:
    """[time] -> FINE_BAND_HZ at FINE_HZ, energy 1 (0 for silence)."""
    return np.asarray(_unit_energy(band_limited(waveform, rate_hz, FINE_HZ, FINE_BAND_HZ)), np.float32)


def _unit_energy(signal: npt.NDArray[Any]) -> npt.NDArray[Any]:
    norm = float(np.linalg.norm(signal))
    return signal / norm if norm > _TINY else np.zeros_like(signal)


def _least_overlap(first: int, second: int, rate_hz: int) -> int:
    """Samples that two recordings of these lengths must have in common."""
    return max(1, int(min(MIN_OVERLAP_S * rate_hz, MIN_OVERLAP_SHARE * min(first, second))))


def _exhaustive(
    waveforms: Sequence[Waveform], memberships: Sequence[frozenset[int]], limits: Sequence[float],
    executor: ThreadPoolExecutor, known: Sequence[Fingerprint] | None = None, only: Collection[int] | None = None,
) -> list[Candidate]:
    """Every pair that passes one of the limits in the coarse band and is in no set of compared recordings together.

    Recordings of similar length share a block, so that little padding is needed.

    Args:
        only: pairs of which at least one is among these; `None`: all pairs.
    """
    coarse = executor.map(lambda position: _coarse(*waveforms[position]), range(len(waveforms)))
    signals = list(track(coarse, "reading recordings", len(waveforms)))
    order = sorted(range(len(signals)), key=lambda k: (len(signals[k]), k))
    wanted = set(order) if only is None else set(only)
    parts = [[k for k in order if k in wanted], [k for k in order if k not in wanted]]
    blocks = [part[k : k + _ROWS] for part in parts for k in range(0, len(part), _ROWS)]
    first = len(range(0, len(parts[0]), _ROWS))      # blocks of recordings that are wanted
    shared = [frozenset.intersection(*(memberships[k] for k in block)) for block in blocks]
    work = ((blocks[b], blocks[c]) for b, c in _pairs(len(blocks), first) if shared[b].isdisjoint(shared[c]))
    count = sum(shared[b].isdisjoint(shared[c]) for b, c in _pairs(len(blocks), first))
    found = _in_turn(lambda pair: _compare_blocks(signals, *pair, memberships, limits), work, executor)
    return [candidate for part in track(found, "comparing recordings", count) for candidate in part]


def _by_fingerprint(
    waveforms: Sequence[Waveform], memberships: Sequence[frozenset[int]], limits: Sequence[float],
    executor: ThreadPoolExecutor, known: Sequence[Fingerprint] | None,
) -> list[Candidate]:
    """As `_exhaustive`, for the pairs that fingerprints name, and those with a recording too short for that."""
    known = fingerprint_all(waveforms, executor) if known is None else known
    short = [k for k, own in enumerate(known) if not own.sufficient and _may_have_new(k, memberships)]
    found = _exhaustive(waveforms, memberships, limits, executor, None, short) if short else []
    done = {(i, j) for i, j, _ in found}
    partners: dict[int, set[int]] = {}
    for pairs in track(fingerprints.candidates(known), "comparing fingerprints", fingerprints.TABLES):
        for i, j in pairs.tolist():
            if memberships[i].isdisjoint(memberships[j]) and (i, j) not in done:
                partners.setdefault(i, set()).add(j)

    def compare(i: int) -> list[Candidate]:
        near = {k: _coarse(*waveforms[k]) for k in (i, *partners[i])}
        return _compare_blocks(near, [i], sorted(partners[i]), memberships, limits)

    compared = _in_turn(compare, iter(sorted(partners)), executor)
    return found + [one for part in track(compared, "comparing recordings", len(partners)) for one in part]


def _may_have_new(position: int, memberships: Sequence[frozenset[int]]) -> bool:
    """Whether a recording may have partners that it was not compared with."""
    return any(own.isdisjoint(memberships[position]) for own in set(memberships))


def _pairs(blocks: int, first: int) -> Iterator[tuple[int, int]]:
    """Pairs b >= c of blocks of which c is among the `first`."""
    return ((b, c) for b in range(blocks) for c in range(min(b + 1, first)))


def _in_turn(function: Callable[[T], R], items: Iterator[T], executor: ThreadPoolExecutor) -> Iterator[R]:
    """The executor's `map` with at most `_AT_ONCE` items waiting, because 10^6 recordings have 10^8 pairs of blocks."""
    while some := list(islice(items, _AT_ONCE)):
        yield from executor.map(function, some)


def _compare_blocks(
    signals: Sequence[Complexes] | Mapping[int, Complexes], left: list[int], right: list[int],
    memberships: Sequence[frozenset[int]], limits: Sequence[float],
) -> list[Candidate]:
    """Candidates between two blocks of positions; within one block each pair once."""
    lengths = np.array([len(signals[j]) for j in right])
    longest, other = max(len(signals[i]) for i in left), int(lengths.max())
    size = int(scipy.fft.next_fast_len(longest + other))
    spectra = np.conj(scipy.fft.fft(np.stack([_stretch(signals[j], 0, size) for j in right])))
    before = np.stack([_energy_before(signals[j], longest, longest + other)[::-1] for j in right])
    lags = np.arange(-other, longest)
    found = []
    for i in left:
        rows = np.array([r for r, j in enumerate(right)
                         if (j < i or left is not right) and memberships[i].isdisjoint(memberships[j])], int)
        if not len(rows):
            continue
        crossed = scipy.fft.ifft(scipy.fft.fft(signals[i], size) * spectra[rows], overwrite_x=True)
        power = _squared(crossed, other, len(lags))
        energy = _overlap_energy(signals[i], before[rows], lengths[rows], longest, other)
        passed = power > min(limits)**2 * energy
        for row, length in zip(passed, lengths[rows], strict=True):     # only lags with enough overlap
            least = _least_overlap(len(signals[i]), length, COARSE_HZ)
            row[: max(0, other + least - length)] = row[other + len(signals[i]) - least + 1 :] = False
        for r in np.flatnonzero(passed.any(axis=1)):
            sure = passed[r] & (energy[r] > _TINY)
            if not sure.any():
                continue
            overlap = np.minimum(len(signals[i]), lengths[rows[r]] + lags) - np.maximum(lags, 0)
            best = [_most_certain(power[r], energy[r], overlap, sure & (power[r] > limit**2 * energy[r]))
                    for limit in limits]
            j, sign = right[rows[r]], 1 if i < right[rows[r]] else -1
            lags_s = tuple(None if k is None else sign * float(lags[k]) / COARSE_HZ for k in best)
            found.append((min(i, j), max(i, j), lags_s))
    return found


def _squared(crossed: Complexes, before: int, count: int) -> Floats:
    """Squared magnitude of a circular correlation [rows, size], for `count` lags from -before on."""
    lags = np.concatenate([crossed[:, -before:], crossed[:, : count - before]], axis=1)
    return np.asarray(lags.real**2 + lags.imag**2, np.float32)


def _stretch(signal: Complexes, before: int, length: int) -> Complexes:
    """[time] -> [length], with zeros before and after."""
    stretched = np.zeros(length, np.complex64)
    stretched[before : before + len(signal)] = signal
    return stretched


def _energy_before(signal: Complexes, below: int, above: int) -> Floats:
    """Energy of all samples before t, for t from -below to above: [below + above + 1]."""
    stretched = _stretch(signal, below + 1, below + above + 1)
    return np.cumsum(stretched.real.astype(np.float64) ** 2 + stretched.imag.astype(np.float64) ** 2).astype(np.float32)


def _overlap_energy(a: Complexes, before: Floats, lengths: npt.NDArray[np.int64], longest: int, other: int) -> Floats:
    """Product of the two energies of the overlap at every lag: [rows, other + longest].

    `before`: of the partners, time reversed, for t from longest + other down to -longest.
    """
    count = other + longest
    own = _energy_before(a, other, longest + other)
    mine = np.stack([own[n : n + count] for n in lengths]) - own[:count]    # from t = lag to lag + partner's length
    start = longest - len(a)                                                # reversed position of t = len(a) - lag
    theirs = before[:, start : start + count] - before[:, longest : longest + count]
    return np.asarray(mine * theirs, np.float32)


def _most_certain(
    power: Floats, energy: Floats, overlap: npt.NDArray[np.int64], passed: npt.NDArray[np.bool_]
) -> int | None:
    """Position of the lag that is least likely by chance: largest overlap x -log(1 - correlation^2) among `passed`."""
    if not passed.any():
        return None
    unexplained = 1 - np.minimum(power[passed] / energy[passed], 0.9999)
    return int(np.flatnonzero(passed)[np.argmax(-overlap[passed] * np.log(unexplained))])


def _verify(first: Floats, second: Floats, lag_s: float, threshold: float) -> tuple[float, float, float] | None:
    """(correlation, lag_s, overlap_s) of two fine signals near a coarse lag; None if they are not the same audio."""
    reach = round(1.5 * FINE_HZ / COARSE_HZ)
    guess = round(lag_s * FINE_HZ)
    correlation, lag, overlap = _best(first, second, range(guess - reach, guess + reach + 1))
    if abs(correlation) < threshold:
        return None
    near, far = (round(s * FINE_HZ) for s in RIVAL_S)
    rival = max(abs(_best(first, second, range(lag + k * near, lag + k * far, 2 * k))[0]) for k in (-1, 1))
    if 1 - correlation**2 > RIVAL_MARGIN * (1 - rival**2):
        return None
    return correlation, lag / FINE_HZ, overlap / FINE_HZ


def _best(first: Floats, second: Floats, lags: Iterable[int]) -> tuple[float, int, int]:
    """(correlation, lag, overlap) at the lag of the largest absolute correlation."""
    return max((_at(first, second, lag) for lag in lags), key=lambda match: abs(match[0]))


def _at(first: Floats, second: Floats, lag: int) -> tuple[float, int, int]:
    """(correlation, lag, overlap) where the second starts at sample `lag` of the first."""
    start, end = max(0, lag), min(len(first), lag + len(second))
    a, b = first[start:end], second[start - lag : end - lag]
    if len(a) < _least_overlap(len(first), len(second), FINE_HZ) - FINE_HZ // COARSE_HZ:
        return 0.0, lag, len(a)
    energy = float(np.dot(a, a)) * float(np.dot(b, b))
    return (float(np.dot(a, b)) / energy**0.5 if energy > _TINY else 0.0), lag, len(a)
