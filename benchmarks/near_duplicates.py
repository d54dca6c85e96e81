"""The search for near-duplicates: what fingerprints find of what comparing every pair finds, and how the time grows.

python benchmarks/near_duplicates.py --folders ~/circor ~/pascal
python benchmarks/near_duplicates.py --copies ~/circor
python benchmarks/near_duplicates.py --sizes 1000 3000 10000

`--folders`: recall on the pairs of real collections, candidates for each recording, and CPU seconds of both searches.
`--copies`: recall on changed copies of up to 200 recordings of a folder. `--sizes`: CPU seconds for so many simulated
recordings of ten seconds, one thread, with the exponent of a power law through them and what it says of larger numbers.
"""

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import butter, resample_poly, sosfilt

from heartml.audio import fingerprints, near_duplicates, sound_files
from heartml.core.system import parallel
from heartml.core.system.lazy import LazySequence
from heartml.data.simulation import visits
from heartml.data.simulation.children import draw_child

Waveform = near_duplicates.Waveform
THRESHOLDS = (0.9, 0.95)
SECONDS = 10.0
MOST_COPIED = 200


def read(folder: Path) -> list[Waveform]:
    """All recordings of a folder that can be read."""
    found = []
    for path in sorted(folder.rglob("*.wav")):
        try:
            samples = sound_files.read(path)
        except sound_files.AudioError:
            continue
        found.append((samples.floats, samples.sample_rate_hz))
    return found


def pairs(waveforms: list[Waveform], *, exhaustive: bool) -> tuple[list[set[tuple[int, int]]], float]:
    """The pairs at each threshold, and CPU seconds."""
    started = time.process_time()
    tables = near_duplicates.search(waveforms, THRESHOLDS, exhaustive=exhaustive)
    found = [set(zip(table["i"], table["j"], strict=True)) for table in tables]
    return found, time.process_time() - started


def candidates(waveforms: list[Waveform]) -> set[tuple[int, int]]:
    """The pairs that fingerprints name."""
    found = fingerprints.candidates([fingerprints.fingerprint(*waveform) for waveform in waveforms])
    return {(int(i), int(j)) for table in found for i, j in table}


def of_folder(folder: Path) -> None:
    """Print recall and cost on a real collection."""
    waveforms = read(folder)
    every, slow_s = pairs(waveforms, exhaustive=True)
    quick, fast_s = pairs(waveforms, exhaustive=False)
    named = candidates(waveforms)
    for threshold, expected, found in zip(THRESHOLDS, every, quick, strict=True):
        print(f"{folder.name} at {threshold}: {len(expected & found)} of {len(expected)} pairs found, "
              f"{len(found - expected)} others")
    false = len(named - every[0]) / len(waveforms)
    print(f"{folder.name}: {len(waveforms)} recordings, {false:.2f} false candidates a recording; "
          f"every pair {slow_s:.1f} s, with fingerprints {fast_s:.1f} s of CPU")


def as_mp3(sound: np.ndarray, rate: int) -> Waveform:
    """Encoded as MP3 at 64 kbit/s and 16 kHz, and read again."""
    faster = resample_poly(sound.astype(np.float64), 16_000, rate)
    encoded = io.BytesIO()
    soundfile.write(encoded, faster / max(np.abs(faster).max(), 1e-9) * 0.8, 16_000, format="MP3",
                    bitrate_mode="CONSTANT", compression_level=0.63)
    encoded.seek(0)
    samples, read_rate = soundfile.read(encoded, dtype="float32")
    return samples, int(read_rate)


def noisy(sound: np.ndarray, rate: int) -> Waveform:
    """With white noise at 20 dB."""
    noise = np.random.default_rng(len(sound)).normal(0, 0.1 * sound.std(), len(sound))
    return (sound + noise).astype(np.float32), rate


def filtered(sound: np.ndarray, rate: int) -> Waveform:
    """Through a band-pass of the second order, 30 to 400 Hz."""
    return sosfilt(butter(2, [30, 400], "bandpass", fs=rate, output="sos"), sound).astype(np.float32), rate


COPIES: dict[str, Callable[[np.ndarray, int], Waveform]] = {
    "cut: the middle half": lambda sound, rate: (sound[len(sound) // 4 : 3 * len(sound) // 4], rate),
    "cut to four seconds": lambda sound, rate: (sound[rate : 5 * rate], rate),
    "shifted by 1.2345 s": lambda sound, rate: (sound[round(1.2345 * rate) :], rate),
    "resampled to 44.1 kHz": lambda sound, rate: (
        resample_poly(sound.astype(np.float64), 441, rate // 100).astype(np.float32), 44_100),
    "resampled to 2 kHz": lambda sound, rate: (
        resample_poly(sound.astype(np.float64), 1, rate // 2000).astype(np.float32), 2000),
    "clipped: 2 % of the samples": lambda sound, rate: (np.clip(sound, *np.quantile(sound, [0.01, 0.99])), rate),
    "filtered, 30 to 400 Hz": filtered, "MP3 at 64 kbit/s": as_mp3, "white noise at 20 dB": noisy,
    "upside down, a tenth as loud": lambda sound, rate: (-0.1 * sound, rate),
}


def of_copies(folder: Path) -> None:
    """Print, for each change, how many copies are near-duplicates by the exact comparison, and how many are found."""
    originals = [one for one in read(folder) if one[1] % 2000 == 0][:MOST_COPIED]
    count = len(originals)
    for name, change in COPIES.items():
        both = [*originals, *(change(*one) for one in originals)]
        named = candidates(both)
        alike = [k for k in range(count)
                 if len(near_duplicates.search([both[k], both[count + k]], [0.9], exhaustive=True)[0])]
        found = sum((k, count + k) in named for k in alike)
        false = sum(j != count + i for i, j in named)
        print(f"{name}: {found} of {len(alike)} copies that correlate by .9 or more ({count} made); "
              f"{false / len(both):.2f} false candidates a recording")


def simulated(number: int) -> list[np.ndarray]:
    """The recordings of one simulated child, int16."""
    return [recording.pcm for visit in visits.draw_visits(11, draw_child(11, number))
            for recording in visits.record(visit, SECONDS)]


def of_sizes(sizes: list[int]) -> None:
    """Print CPU seconds by size and the fitted exponent."""
    made: list[np.ndarray] = []
    with parallel.pool(parallel.available_workers(0)) as workers:
        for of_child in workers.map(simulated, range(max(sizes))):
            made += of_child
            if len(made) >= max(sizes):
                break
    seconds = []
    for size in sizes:
        waveforms = LazySequence(lambda k: ((made[k] / np.float32(32768)), 4000), size)
        started = time.process_time()
        known = [fingerprints.fingerprint(*waveforms[k]) for k in range(size)]
        marked = time.process_time()
        named = {(int(i), int(j)) for table in fingerprints.candidates(known) for i, j in table}
        indexed = time.process_time()
        table = near_duplicates.search(waveforms, [0.9], known=known)[0]
        ended = time.process_time()
        total = (marked - started) + (ended - indexed)
        seconds.append(total)
        print(f"{size} recordings: {total:.1f} s of CPU: fingerprints {marked - started:.1f}, candidates "
              f"{indexed - marked:.1f}, exact comparison {ended - indexed - (indexed - marked):.1f}; "
              f"{len(named) / size:.2f} candidates a recording, {len(table)} pairs", flush=True)
    if len(sizes) > 1:
        exponent, constant = np.polyfit(np.log(sizes), np.log(seconds), 1)
        print(f"exponent {exponent:.2f}; by it 100,000 recordings take "
              f"{np.exp(constant) * 1e5**exponent / 3600:.2f} h of CPU and a million "
              f"{np.exp(constant) * 1e6**exponent / 3600:.1f} h (without reading and decoding files)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", nargs="+", type=Path, default=[])
    parser.add_argument("--copies", type=Path)
    parser.add_argument("--sizes", nargs="+", type=int, default=[])
    options = parser.parse_args()
    parallel.single_thread()
    for folder in options.folders:
        of_folder(folder)
    if options.copies:
        of_copies(options.copies)
    if options.sizes:
        of_sizes(options.sizes)


if __name__ == "__main__":
    main()
