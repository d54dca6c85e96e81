"""Are the recordings of a folder replays of one sound? `python benchmarks/replayed_sounds.py FOLDER LOW_HZ HIGH_HZ`.

In: a folder of WAV files that are named `<x>_<type>_<y>.wav`, as HLS-CMDS's are, and a band. Every pair is compared at
every lag with at least three seconds of overlap. Printed: the correlations of pairs of one type and of others, and how
often the recording that fits a recording best has its type. Where that is nearly always so, types are told by
recognising a sound, and a score on them says nothing about other people.
"""

import itertools
import sys
from pathlib import Path

import numpy as np
import scipy.fft
import soundfile

LEAST_S = 3.0


def read(path: Path, low_hz: float, high_hz: float) -> tuple[np.ndarray, int]:
    """Samples [time] within the band, and their rate."""
    samples, rate_hz = soundfile.read(path, dtype="float64")
    spectrum, hz = scipy.fft.rfft(samples), np.fft.rfftfreq(len(samples), 1 / rate_hz)
    return scipy.fft.irfft(spectrum * ((hz >= low_hz) & (hz <= high_hz)), len(samples)), rate_hz


def best_correlation(one: np.ndarray, other: np.ndarray, least: int) -> float:
    """The largest absolute correlation over all lags with at least `least` samples of overlap; lengths are equal."""
    count = len(one)
    size = scipy.fft.next_fast_len(2 * count, real=True)
    product = scipy.fft.irfft(scipy.fft.rfft(one, size) * np.conj(scipy.fft.rfft(other, size)), size)
    lags = np.arange(-(count - least), count - least + 1)
    energy, others = (np.concatenate([[0.0], np.cumsum(x**2)]) for x in (one, other))
    ahead, behind = np.maximum(lags, 0), np.maximum(-lags, 0)
    own = energy[count - behind] - energy[ahead]
    beside = others[count - ahead] - others[behind]
    return float(np.abs(product[lags % size] / np.sqrt(own * beside + 1e-12)).max())


def main(folder: str, low_hz: str, high_hz: str) -> None:
    """Print the comparison."""
    files = sorted(Path(folder).glob("*_*_*.wav"))
    types = np.array([path.stem.split("_")[1] for path in files])
    sounds = [read(path, float(low_hz), float(high_hz)) for path in files]
    alike = np.zeros((len(files), len(files)))
    for i, j in itertools.combinations(range(len(files)), 2):
        alike[i, j] = alike[j, i] = best_correlation(sounds[i][0], sounds[j][0], round(LEAST_S * sounds[i][1]))
    same = types[:, None] == types
    pairs = np.triu(np.ones_like(same), 1).astype(bool)
    for what, chosen in (("one type", pairs & same), ("two types", pairs & ~same)):
        low, middle, high = np.quantile(alike[chosen], [0.05, 0.5, 0.95])
        print(f"{chosen.sum()} pairs of {what}: correlation {low:.2f} to {high:.2f} (90 %), median {middle:.2f}")
    right = types[alike.argmax(axis=1)] == types
    recalls = [right[types == name].mean() for name in sorted(set(types))]
    print(f"the best fit has the right type for {right.sum()} of {len(files)} recordings, mean recall "
          f"{np.mean(recalls):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
