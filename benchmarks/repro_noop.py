"""`dvc repro` with nothing changed, compared with DVC on an empty project of six stages, in the same run.

python benchmarks/repro_noop.py [--rounds 5] [--json FILE]

Run it in a repository where no stage is stale (after `make run`). The empty project has six stages; each depends on one
file and writes one file. `heartml retrain` with nothing new is timed as well.
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

from rich.console import Console
from rich.table import Table

EMPTY = {f"stage{n}": {"cmd": f"cp in{n} out{n}", "deps": [f"in{n}"], "outs": [f"out{n}"]} for n in range(6)}
ENVIRONMENT = {**os.environ, "DVC_NO_ANALYTICS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    here, repro = Path.cwd(), [sys.executable, "-m", "dvc", "repro"]
    with tempfile.TemporaryDirectory() as folder:
        empty = make_empty(Path(folder))
        jobs = {"dvc repro, an empty six-stage project": (repro, empty), "dvc repro, HeartML": (repro, here),
                "heartml retrain, nothing new": ([sys.executable, "-m", "heartml", "retrain"], here)}
        for command, where in jobs.values():
            run(command, where)                # once before: nothing is stale then, and bytecode is written
        times = {name: [] for name in jobs}
        for _ in range(options.rounds):        # in turn, so that other load slows all of them
            for name, (command, where) in jobs.items():
                times[name].append(run(command, where))
    rows = [{"command": name, "wall_s": statistics.median(w for w, _ in found),
             "cpu_s": statistics.median(c for _, c in found)} for name, found in times.items()]
    for row in rows:
        row |= {"times_empty": row["wall_s"] / rows[0]["wall_s"], "times_empty_cpu": row["cpu_s"] / rows[0]["cpu_s"]}
    table = Table(title=f"median of {options.rounds}", title_justify="left")
    for column in ("command", "wall s", "times the empty project's", "CPU s", "times"):
        table.add_column(column, justify="left" if column == "command" else "right")
    for row in rows:
        table.add_row(row["command"], f"{row['wall_s']:.2f}", f"{row['times_empty']:.2f}", f"{row['cpu_s']:.2f}",
                      f"{row['times_empty_cpu']:.2f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def make_empty(folder: Path) -> Path:
    """A git and DVC repository with six stages that have run."""
    (folder / "dvc.yaml").write_text(json.dumps({"stages": EMPTY}))     # JSON is YAML
    for number in range(6):
        (folder / f"in{number}").write_text(f"{number}\n")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        run(command, folder)
    return folder


def run(command: list[str], where: Path) -> tuple[float, float]:
    """Wall and CPU seconds of one process and its children."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=where, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} in {where}\n{done.stdout}\n{done.stderr}")
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
