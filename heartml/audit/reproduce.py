"""Made again: the commit in a fresh folder, its data by hash, every stage by force, each output beside the stored one.

Clone, data, DVC cache and outputs lie in a temporary folder outside the project, which stays as it is, also where
this is killed: the stages die with it, and the next one removes its folder. Where Python, packages and machine are
those that were noted, every output has to have the same bytes; else the numbers in it may differ by `audit.tolerance`
of params.yaml, and the table says so.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from heartml.audit import compare_outputs
from heartml.audit.compare_outputs import DIFFERS, GONE, SAME, WITHIN, ComparedOutput
from heartml.audit.evidence import Evidence
from heartml.audit.links import Lost, Wrong, listed
from heartml.core import paths
from heartml.core.system.processes import alive
from heartml.core.system.progress import track
from heartml.lineage import capture
from heartml.lineage.capture import DATA_DVC, DVC_LOCK
from heartml.lineage.dvc_objects import Gone

# The clone may hold this package as it was laid out years ago, so nothing of it is imported here.
_DVC = """
import contextlib, ctypes, os, sys
from dvc.cli import main
with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL(None).prctl(1, 9)     # PR_SET_PDEATHSIG, SIGKILL: die with the audit that started it
if os.getppid() != {parent}:          # it died before that
    sys.exit(1)
sys.exit(main(sys.argv[1:]))
"""
_PREFIX = "heartml-reproduce-"
_STAGE = "Running stage '"
_LAST = 15          # lines of a failed run that are shown


@dataclass(frozen=True)
class Reproduction:
    """Each output beside the stored one; `other`: what differs between this environment and the noted one, in words."""

    outputs: tuple[ComparedOutput, ...]
    other: tuple[str, ...]
    tolerance: float
    seconds: float

    @property
    def broken(self) -> list[str]:
        """Outputs that are not what was stored; in the same environment only the same bytes are."""
        return [f"{one.path}: {one.words}" for one in self.outputs
                if one.state in (DIFFERS, GONE) or (one.state == WITHIN and not self.other)]

    @property
    def words(self) -> str:
        """What came of it."""
        same, within = (sum(one.state == state for one in self.outputs) for state in (SAME, WITHIN))
        where = f"in another environment ({listed(list(self.other))})" if self.other else "in the same environment"
        near = f", {within} the same numbers within {self.tolerance:g}" if within else ""
        wrong = f"; {listed(self.broken)}" if self.broken else ""
        return f"{same} of {len(self.outputs)} outputs have the same bytes {where}{near}{wrong}"


def run(evidence: Evidence, tolerance: float) -> Reproduction:
    """Run every stage behind the version again, and compare.

    Raises:
        Lost: commit, difference, data or lock are not there.
        Wrong: a stage fails.
    """
    started = time.monotonic()
    _sweep()
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True) as place:
        root = Path(place) / "project"
        _clone(evidence, root)
        _bring_data(evidence, root)
        _run_stages(root, sorted(evidence.stages))
        made = _outputs(root)
        outputs = [compare_outputs.output(path, md5, made.get(path, ""), root / path, evidence.objects, tolerance)
                   for path, md5 in track(evidence.outputs.items(), "compare", len(evidence.outputs))]
    return Reproduction(tuple(outputs), tuple(differences(evidence.facts.get("environment", {}))), tolerance,
                        time.monotonic() - started)


def _sweep() -> None:
    """Remove the folders that killed ones left in the system's temporary folder."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = left.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _clone(evidence: Evidence, root: Path) -> None:
    """The commit, with the stored difference; git's objects are shared with the project, not copied."""
    top = _git(Path(), "rev-parse", "--show-toplevel").strip()
    if not evidence.tree.blobs:
        raise Lost(f"commit {evidence.commit} holds no file")
    _git(Path(), "clone", "--quiet", "--shared", "--no-checkout", top, str(root))
    _git(root, "checkout", "--quiet", "--detach", evidence.commit)
    if evidence.facts["code"].get("dirty"):
        _git(root, "apply", "--whitespace=nowarn", str(evidence.file("code.diff").resolve()))
    (root / DVC_LOCK).unlink(missing_ok=True)      # the stored one is compared with, nothing is taken from it


def _git(where: Path, *command: str) -> str:
    done = subprocess.run(["git", *command], cwd=where, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Wrong(f"git {command[0]}: {done.stderr.strip()[:300]}")
    return done.stdout


def _bring_data(evidence: Evidence, root: Path) -> None:
    """The data version, each file from the first place that has it whole."""
    (root / DATA_DVC).write_bytes(evidence.file("data.dvc").read_bytes())
    try:
        listing = evidence.objects.listing(evidence.data_md5)
    except Gone as gone:
        raise Lost(f"data version {evidence.data_md5}: {gone}") from None

    def bring(entry: tuple[str, str]) -> None:
        path = root / paths.DATA / entry[0]
        if not path.resolve().is_relative_to(root.resolve()):
            raise Wrong(f"the listing of the data names a file outside of it: {entry[0]}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(evidence.objects.read(entry[1]))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            list(track(pool.map(bring, listing.items()), "data", len(listing)))
        except Gone as gone:
            raise Lost(f"data version {evidence.data_md5}: {gone}") from None


def _run_stages(root: Path, addresses: Sequence[str]) -> None:
    """`dvc repro --force` in the clone, with its own code, cache and state, by this Python."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_", "HEARTML_", "DVC_"))}
    env = {**kept, "PYTHONPATH": str(root), "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1",
           "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    command = [sys.executable, "-c", _DVC.format(parent=os.getpid()), "repro", "--force", *addresses]
    said: list[str] = []
    with subprocess.Popen(command, cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace") as process:
        try:
            for _ in track(_started(process, said), "stages", len(addresses)):
                pass
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise Wrong(f"`dvc repro --force` fails: {' | '.join(said[-_LAST:])}")


def _started(process: "subprocess.Popen[str]", said: list[str]) -> Iterator[str]:
    """Each stage as it starts; every line goes into `said`."""
    assert process.stdout
    for line in process.stdout:
        said += [line.strip()] if line.strip() else []
        if line.startswith(_STAGE):
            yield line


def _outputs(root: Path) -> dict[str, str]:
    lock = yaml.safe_load((root / DVC_LOCK).read_text(encoding="utf-8"))
    return {out["path"]: str(out.get("md5", "")) for entry in lock["stages"].values() for out in entry.get("outs", [])}


def differences(noted: dict[str, Any]) -> list[str]:
    """How this environment differs from the one that was noted, as far as that may change numbers."""
    here: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform(),
                            "machine": platform.machine()}
    pairs = [(what, noted.get(what), now) for what, now in here.items()]
    pairs += [("GPU", noted["gpu"] or "none", capture.gpu() or "none")] if "gpu" in noted else []
    for name, version in noted.get("packages", {}).items():
        try:
            pairs.append((name, version, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            pairs.append((name, version, "none"))
    return [f"{what} {now} here, {then} then" for what, then, now in pairs if then != now]
