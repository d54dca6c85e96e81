"""How long a loaded model takes for one recording, and for what: decode, prepare, encode, heads, combine.

python benchmarks/predict_latency.py [MODEL ...] [--seconds 23] [--rate 4000] [--rounds 40] [--json FILE]

Each MODEL is a folder with `model.json`; without one, every `artifacts/*/model` of this project is measured. One thread
is used, as in `heartml predict`. Printed are median and 95th percentile over rounds, with models in turn. The parts are
timed inside the same calls. On a busy machine the CPU milliseconds and the fastest round say more than the median.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from rich.console import Console
from rich.table import Table

PARTS = ("decode", "prepare", "encode", "heads", "combine", "rest")
AIM_MS = 150.0      # one recording of 23 s, all models of the ensemble, two cores


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--seconds", type=float, default=23.0)
    parser.add_argument("--rate", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folders = options.models or sorted(Path().glob("artifacts/*/model"))
    if not folders:
        sys.exit("no model: name a folder with model.json, or run this where `make run` has been")
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(folders, recording(Path(folder), options.seconds, options.rate), options.rounds)
    show(rows, options.seconds, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def recording(folder: Path, seconds: float, rate_hz: int) -> Path:
    """A FLAC file of noise whose loudness varies, `seconds` long."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(0).normal(0, 0.05, len(time_s)) * (1 + np.sin(2 * np.pi * 1.2 * time_s))
    path = folder / "recording.flac"
    soundfile.write(path, noise, rate_hz)
    return path


def measure(folders: list[Path], path: Path, rounds: int) -> list[dict[str, Any]]:
    """One row for each model: milliseconds in all and for each part."""
    from heartml.core.system import parallel

    parallel.single_thread()
    from heartml.audio import sound_files
    from heartml.models.fitted_model import Model

    models = {folder: Model.load(folder) for folder in folders}
    spent: dict[str, float] = defaultdict(float)
    found: dict[Path, list[dict[str, float]]] = {folder: [] for folder in folders}
    with clocks(spent):
        for turn in range(rounds + 3):                   # the first three fill caches and are not counted
            for folder, model in models.items():
                spent.clear()
                started, busy = time.perf_counter(), time.process_time()
                samples = sound_files.read(path)
                waveform = samples.floats
                spent["decode"] = time.perf_counter() - started
                model.predict_audio([(waveform, samples.sample_rate_hz)], ["one"])
                spent["encode"] = spent.pop("frames") - spent["prepare"]
                whole, busy = time.perf_counter() - started, time.process_time() - busy
                if turn >= 3:
                    found[folder].append({**spent, "rest": whole - sum(spent.values()), "whole": whole, "busy": busy})
    return [summary(folder, models[folder], rows) for folder, rows in found.items()]


def summary(folder: Path, model: Any, rows: list[dict[str, float]]) -> dict[str, Any]:
    """Median and 95th percentile in all, median of each part, in milliseconds."""
    whole = sorted(1000 * row["whole"] for row in rows)
    return {
        "model": str(folder), "task": model.assignment_name,
        "members": [f"{len(m.heads)} x {m.spec.head}" for m in model.members.values()],
        "least_ms": whole[0], "cpu_ms": statistics.median(1000 * row["busy"] for row in rows),
        "median_ms": statistics.median(whole), "p95_ms": float(np.percentile(whole, 95)),
        "parts_ms": {part: statistics.median(1000 * row.get(part, 0.0) for row in rows) for part in PARTS},
    }


@contextmanager
def clocks(spent: dict[str, float]) -> Iterator[None]:
    """Add up in `spent` the seconds inside of preparing, encoding, heads and combining, while the block runs."""
    from heartml.audio import preprocessing
    from heartml.models import encoders, fitted_model
    from heartml.models.ensemble.candidate import Member

    places = [(preprocessing, "prepare", "prepare"), (encoders, "frames_of", "frames"),
              (Member, "predict_proba", "heads"), (fitted_model, "predict_proba", "combine")]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for (owner, name, part), (*_, function) in zip(places, before, strict=True):
        setattr(owner, name, timed(function, part, spent))
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def timed(function: Callable[..., Any], part: str, spent: dict[str, float]) -> Callable[..., Any]:
    """`function`, its seconds added to `spent[part]`."""
    def call(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[part] += time.perf_counter() - started

    return call


def show(rows: list[dict[str, Any]], seconds: float, rounds: int) -> None:
    """The table."""
    table = Table(title=f"one recording of {seconds:g} s, loaded model, {rounds} rounds; aim {AIM_MS:g} ms",
                  title_justify="left")
    for column in ("task", "members", "median ms", "p95 ms", "fastest ms", "CPU ms", *(f"{part} %" for part in PARTS)):
        table.add_column(column, justify="left" if column in ("task", "members") else "right")
    for row in rows:
        parts = row["parts_ms"]
        shares = [f"{100 * parts[part] / sum(parts.values()):.0f}" for part in PARTS]
        numbers = [f"{row[name]:.1f}" for name in ("median_ms", "p95_ms", "least_ms", "cpu_ms")]
        table.add_row(row["task"], ", ".join(row["members"]), *numbers, *shares)
    Console().print(table)


if __name__ == "__main__":
    main()
