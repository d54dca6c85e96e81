"""A whole retraining of thousands of simulated recordings: time, CPU and memory of every step, as a table.

    python benchmarks/large_run.py FOLDER [--children 2500] [--seconds 10] [--json FILE]

FOLDER is new. It gets a clone of this repository without the demo, four recordings of each child, and what a user
would run: `heartml simulate`, `ingest`, `retrain`. The commands are measured here; what their stages took is in the
MLflow run of the version that the retraining registers (`seconds/`, `cpu_seconds/`, `peak_memory_mb/`). CPU of a
command is that of the processes that it waited for, and its memory that of the largest; of a stage all count together.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
KINDS = ("seconds", "cpu_seconds", "peak_memory_mb")


def measured(arguments: list[str], folder: Path) -> dict[str, float]:
    """Run `heartml` with these arguments in `folder`: seconds, CPU seconds with its children, and largest memory."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    started = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", "heartml", *arguments], cwd=folder, env=environment) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"heartml {' '.join(arguments)}: exit status {process.returncode}")
    return {"seconds": time.monotonic() - started, "cpu_seconds": used.ru_utime + used.ru_stime,
            "peak_memory_mb": used.ru_maxrss * 1024 / 1e6}


def clone(folder: Path) -> None:
    """This repository at its commit, without the demo's data."""
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    for name in ("data.dvc", "dvc.lock"):
        (folder / name).unlink()


def of_stages(folder: Path) -> dict[str, dict[str, float]]:
    """Stage -> what it took, from the newest run of a version."""
    code = ("import json\nfrom heartml.registry import tracking, versions\nclient = tracking.connect()\n"
            "newest = versions.list_versions(client, 'simulated-murmur')[-1]\n"
            "print(json.dumps(client.get_run(newest.run_id).data.metrics))")
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
                          capture_output=True, text=True, check=True)
    found: dict[str, dict[str, float]] = {}
    for name, value in json.loads(done.stdout.splitlines()[-1]).items():
        kind, _, stage = name.partition("/")
        if kind in KINDS:
            found.setdefault(f"stage {stage}", {})[kind] = value
    return found


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--children", type=int, default=2500)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    folder = given.folder.resolve()
    clone(folder)
    corpus = folder.with_name(f"{folder.name}-corpus")
    numbers = ["--children", str(given.children), "--seconds", str(given.seconds), "--no-faults"]
    found = {"simulate": measured(["simulate", str(corpus), *numbers], folder),
             "ingest": measured(["ingest", "simulated", str(corpus)], folder),
             "retrain": measured(["retrain"], folder)}
    found |= of_stages(folder)
    recordings = len(list((folder / "data/audio").rglob("*.flac")))
    print(f"{recordings:,} recordings of {given.seconds:g} s, {os.cpu_count()} cores")
    for step, used in found.items():
        seconds, cpu_s, memory_mb = (used.get(kind, float("nan")) for kind in KINDS)
        print(f"{step:<45} {seconds:8.1f} s {cpu_s:9.1f} s of CPU {memory_mb:8.0f} MB")
    if given.json:
        given.json.write_text(json.dumps({"recordings": recordings, "seconds": given.seconds, "steps": found},
                                         indent=1) + "\n")


if __name__ == "__main__":
    main()
