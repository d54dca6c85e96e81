"""Feature extraction in hours of audio per second of one core, compared with librosa's log-mel in the same run.

python benchmarks/features.py [FOLDER] [--minutes 30] [--json FILE]

FOLDER holds sound files; without it `data/audio` is used, and where that is missing, simulated noise. Two things are
measured separately. The first is the log-spectrogram alone, from samples in memory at 4 kHz. Its lower limit is one
bare FFT for each frame. The second is everything from the file to the frames; both libraries then use the same decoder.
librosa runs twice, with HeartML's size of the FFT and with its own default. The first call is printed separately,
because librosa compiles then (the cache of its compiler is empty at the start).
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from heartml.audio import containers, preprocessing, sound_files
from heartml.core import config
from heartml.models import encoders
from heartml.models.encoders.logspec import LogspecParams

PARAMS = config.load(Path(__file__).parents[1] / "params.yaml")
RATE_HZ = PARAMS.audio.sample_rate_hz
LOGSPEC = LogspecParams.model_validate(PARAMS.encoder_parameters["logspec"])
MEL = {
    "sr": RATE_HZ, "win_length": round(LOGSPEC.window_s * RATE_HZ), "center": False, "power": 2.0,
    "hop_length": round(LOGSPEC.hop_s * RATE_HZ), "n_mels": LOGSPEC.bands,
    "fmin": LOGSPEC.low_hz, "fmax": LOGSPEC.high_hz,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("data/audio"))
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made, threadpool_limits(1):
        os.environ["NUMBA_CACHE_DIR"] = made
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        paths, what = choose(options.folder, options.minutes, Path(made))
        rows = measure(paths)
    show(rows, what)
    if options.json:
        options.json.write_text(json.dumps({"audio": what, "rows": rows}, indent=2) + "\n")


def choose(folder: Path, minutes: float, made: Path) -> tuple[list[Path], str]:
    """Files of about `minutes` in all, every n-th of the folder's, and what they are in words."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in containers.SUFFIXES) if folder.is_dir() else []
    if not found:
        found, folder = simulate(made), Path("simulated noise")
    seconds = np.array([sound_files.read(path).seconds for path in found])
    step = max(1, int(seconds.sum() / (60 * minutes)))
    chosen = found[::step]
    total = seconds[::step].sum()
    return chosen, f"{len(chosen)} files, {total / 60:.1f} min, from {folder.name}"


def simulate(folder: Path) -> list[Path]:
    """Ninety recordings of 20 s at 4 kHz."""
    rng = np.random.default_rng(0)
    for number in range(90):
        pcm = rng.normal(0, 3000, 20 * 4000).astype(np.int16)
        sound_files.write_flac(folder / f"{number:03}.flac", sound_files.Samples(pcm, 4000))
    return sorted(folder.glob("*.flac"))


def measure(paths: list[Path]) -> list[dict[str, object]]:
    """One row for each way: CPU-seconds of the first call, hours of audio per CPU-second afterwards."""
    import librosa
    import torchaudio

    spec = encoders.spec("logspec", PARAMS)
    encoder = encoders.load(spec)
    samples = [sound_files.read(path) for path in paths]
    waveforms = [preprocessing.prepare(s.floats, s.sample_rate_hz, PARAMS.audio) for s in samples]
    hours = sum(len(w) for w in waveforms) / RATE_HZ / 3600
    transform = torchaudio.transforms.MelSpectrogram(
        RATE_HZ, encoder.size, MEL["win_length"], MEL["hop_length"], MEL["fmin"], MEL["fmax"], n_mels=MEL["n_mels"],
        center=False)

    def ours(waveform: np.ndarray) -> object:
        return encoder.encode(torch.from_numpy(waveform)[None])

    def theirs(n_fft: int) -> Callable[[np.ndarray], object]:
        def log_mel(waveform: np.ndarray) -> object:
            return librosa.power_to_db(librosa.feature.melspectrogram(y=waveform, n_fft=n_fft, **MEL))
        return log_mel

    def torchaudios(waveform: np.ndarray) -> object:
        return transform(torch.from_numpy(waveform)[None]).add(1e-4).log()

    def bare_fft(waveform: np.ndarray) -> object:
        return torch.fft.rfft(torch.from_numpy(waveform).unfold(0, MEL["win_length"], MEL["hop_length"]), size)

    def ours_from_file(path: Path) -> object:
        read = sound_files.read(path)
        return encoders.frames_of(encoder, spec, read.floats, read.sample_rate_hz)

    def theirs_from_file(n_fft: int) -> Callable[[Path], object]:
        return lambda path: theirs(n_fft)(librosa.load(path, sr=RATE_HZ)[0])

    long_enough = [w for w in waveforms if len(w) >= 2048]
    size = encoder.size
    with torch.inference_mode():
        ways = [
            ("log-spectrogram alone", "HeartML logspec", ours, long_enough),
            ("log-spectrogram alone", f"librosa, n_fft={size}", theirs(size), long_enough),
            ("log-spectrogram alone", "librosa, n_fft=2048 (its default)", theirs(2048), long_enough),
            ("log-spectrogram alone", f"torchaudio, n_fft={size}", torchaudios, long_enough),
            ("log-spectrogram alone", f"lower limit: one FFT of {size} for each frame", bare_fft, long_enough),
            ("from the file", "HeartML: read, DC, high-pass, level, logspec", ours_from_file, paths),
            ("from the file", f"librosa.load + log-mel, n_fft={size}", theirs_from_file(size), paths),
            ("from the file", "librosa.load + log-mel, n_fft=2048", theirs_from_file(2048), paths),
        ]
        rows = [{"part": part, "way": way, **timed(work, items, hours)} for part, way, work, items in ways]
    for row in rows:
        own = next(r for r in rows if r["part"] == row["part"])
        row["faster_warm"] = row["cpu_s_per_hour"] / own["cpu_s_per_hour"]
        row["faster_with_first_call"] = row["new_process_s"] / own["new_process_s"]
    return rows


def timed(work: Callable, items: list, hours: float) -> dict[str, float]:
    """CPU-seconds: of the first call, and the best of three rounds over everything."""
    started = time.process_time()
    work(items[0])
    first = time.process_time() - started
    rounds = []
    for _ in range(3):
        started = time.process_time()
        for item in items:
            work(item)
        rounds.append(time.process_time() - started)
    best = min(rounds)
    return {"first_call_s": first, "cpu_s_per_hour": best / hours, "hours_per_s": hours / best,
            "new_process_s": first + best}


def show(rows: list[dict[str, object]], what: str) -> None:
    """The table."""
    table = Table(title=f"{what}; one core, one thread, CPU time, best of three", title_justify="left")
    for column in ("", "way", "first call s", "CPU-s per hour", "hours of audio per s", "HeartML faster, warm",
                   "first call included"):
        table.add_column(column, justify="left" if column in ("", "way") else "right")
    for row in rows:
        table.add_row(row["part"], row["way"], f"{row['first_call_s']:.2f}", f"{row['cpu_s_per_hour']:.3f}",
                      f"{row['hours_per_s']:.2f}", f"{row['faster_warm']:.1f} x",
                      f"{row['faster_with_first_call']:.0f} x")
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
