"""Trials per minute of the search on cached frames, with one worker and with every core, the same trials each time.

python benchmarks/search.py [--task TASK] [--trials 12] [--json FILE]

Run it in a repository whose stages have run up to `features`. Nothing in it is changed: the search runs in a copy. A
trial with a sequence head takes a CPU-minute, the others take seconds, so the two kinds are counted separately.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from heartml.core import config, paths
from heartml.core.system import hashing, parallel


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default=config.load().tasks[0])
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cores = parallel.available_workers(0)
    rows = [measure(options.task, kind, trials, workers)
            for kind, trials in (("pooled heads", options.trials), ("sequence head", 1)) for workers in (1, cores)]
    table = Table(title=f"search of {options.task}, frames cached, {cores} cores", title_justify="left")
    for column in ("trials of", "trials", "workers", "wall s", "trials per minute", "outcome"):
        table.add_column(column, justify="left" if column in ("trials of", "outcome") else "right")
    for row in rows:
        table.add_row(row["kind"], str(row["trials"]), str(row["workers"]), f"{row['wall_s']:.1f}",
                      f"{row['trials_per_minute']:.1f}", row["outcome"][:12])
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(task: str, kind: str, trials: int, workers: int) -> dict[str, object]:
    """Run the search in a copy; `outcome` is a hash over all trials, which must not depend on the number of workers."""
    with tempfile.TemporaryDirectory() as folder:
        root = copy(task, Path(folder), kind, trials, workers)
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "heartml", "search", "--task", task], cwd=root, check=False,
                              text=True, capture_output=True,
                              env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})
        if done.returncode:
            sys.exit(done.stderr)
        wall = time.perf_counter() - started
        outcome = hashing.sha256_folder(root / paths.search(task))
    return {"kind": kind, "trials": trials, "workers": workers, "wall_s": wall,
            "trials_per_minute": 60 * trials / wall, "outcome": outcome}


def copy(task: str, root: Path, kind: str, trials: int, workers: int) -> Path:
    """A copy of what the search reads, with parameters for this measurement."""
    for table in (paths.RECORDINGS, paths.ANNOTATIONS, paths.folds(task)):
        (root / table).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(table, root / table)
    shutil.copytree(paths.features(task, "x").parent, root / paths.features(task, "x").parent)
    params = yaml.safe_load(paths.PARAMS.read_text())
    sequence = trials if kind == "sequence head" else 0
    params["search"] |= {"trials": trials, "network_trials": {"sequence": sequence}, "workers": workers}
    for own in params["search"].get("tasks", {}).values():
        own.pop("network_trials", None)
    if not sequence:
        trials_of = params["search"]["initial_trials"]
        params["search"]["initial_trials"] = [words for words in trials_of if "head=sequence" not in words.split()]
    (root / paths.PARAMS).write_text(yaml.safe_dump(params))
    return root


if __name__ == "__main__":
    main()
