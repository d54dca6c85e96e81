"""Cold start of `heartml predict`: one recording, a new process each time, compared with the start of Python and torch.

python benchmarks/predict_cold_start.py [--model MODEL] [--rounds 5] [--json FILE]

Run it in a repository with a trained model, or name one with --model (a folder, NAME/VERSION, an exported folder).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console
from rich.table import Table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "recording.wav"
        noise = np.random.default_rng(0).normal(0, 0.1, 20 * 4000) * (1 + np.sin(np.arange(20 * 4000) / 500))
        soundfile.write(recording, noise, 4000)
        named = ["--model", options.model] if options.model else []
        predict = [sys.executable, "-m", "heartml", "predict", str(recording), *named]
        commands = {
            "heartml predict, one recording of 20 s": predict,
            "heartml --help": [sys.executable, "-m", "heartml", "--help"],
            "python -c 'import torch'": [sys.executable, "-c", "import torch"],
            "python -c 'import mlflow'": [sys.executable, "-c", "import mlflow"],
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        times = {name: [] for name in commands}
        run(predict)                                   # the first one asks the registry and copies the champion
        for _ in range(options.rounds):                # in turn, so that other load slows all of them
            for name, command in commands.items():
                times[name].append(run(command))
    rows = [{"command": name, "wall_s": statistics.median(w for w, _ in found),
             "cpu_s": statistics.median(c for _, c in found)} for name, found in times.items()]
    table = Table(title=f"median of {options.rounds} new processes", title_justify="left")
    for column in ("command", "wall s", "CPU s"):
        table.add_column(column, justify="left" if column == "command" else "right")
    for row in rows:
        table.add_row(row["command"], f"{row['wall_s']:.2f}", f"{row['cpu_s']:.2f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def run(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"})     # as users have it
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
