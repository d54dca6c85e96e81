"""Reproduce a version: clone its commit, bring its data by hash, run every stage again, and compare each output.

In: the evidence about one version. Out: a `Reproduction`.

Clone, data, DVC cache and outputs are in a temporary folder outside the project, and the project stays as it is. If the
audit is killed, the stages end with it, and the next reproduction removes the folder. If Python, packages and machine
are the same as when the version was registered, every output must have the same bytes. Otherwise numbers may differ by
`audit.tolerance` of params.yaml, and the table says by how much.
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
from heartml.audit.links import LinkBroken, LinkMissing, listed
from heartml.core import paths
from heartml.core.system.processes import alive
from heartml.core.system.progress import track
from heartml.lineage import capture
from heartml.lineage.capture import DATA_DVC, DVC_LOCK
from heartml.lineage.dvc_objects import ObjectNotFound
from heartml.pipeline import git

# This runs inside the clone, where `heartml` is the package of that commit, perhaps with another layout. So it imports
# nothing of `heartml`.
_DVC_LAUNCHER = """
import contextlib, ctypes, os, sys
from dvc.cli import main
with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL(None).prctl(1, 9)     # PR_SET_PDEATHSIG, SIGKILL: end together with the audit that started this
if os.getppid() != {parent}:          # the audit ended before that
    sys.exit(1)
sys.exit(main(sys.argv[1:]))
"""
_PREFIX = "heartml-reproduce-"
_STAGE = "Running stage '"
_SHOWN_LINES = 15   # of a failed run


@dataclass(frozen=True)
class Reproduction:
    """Each output compared with the stored one. `other`: how this environment differs from the version's, in words."""

    outputs: tuple[ComparedOutput, ...]
    other: tuple[str, ...]
    tolerance: float
    seconds: float

    @property
    def broken(self) -> list[str]:
        """Outputs that differ from the stored ones, in words. In the same environment all bytes must be the same."""
        return [f"{one.path}: {one.words}" for one in self.outputs
                if one.state in (DIFFERS, GONE) or (one.state == WITHIN and not self.other)]

    @property
    def words(self) -> str:
        """The result in one sentence."""
        same, within = (sum(one.state == state for one in self.outputs) for state in (SAME, WITHIN))
        where = f"in another environment ({listed(list(self.other))})" if self.other else "in the same environment"
        near = f", {within} the same numbers within {self.tolerance:g}" if within else ""
        wrong = f"; {listed(self.broken)}" if self.broken else ""
        return f"{same} of {len(self.outputs)} outputs have the same bytes {where}{near}{wrong}"


def run(evidence: Evidence, tolerance: float) -> Reproduction:
    """Run every stage behind the version again, and compare the outputs.

    Args:
        tolerance: how far numbers may differ, relative to the larger of 1 and their size.

    Raises:
        LinkMissing: commit, difference, data or lock are not there.
        LinkBroken: a stage fails.
    """
    started = time.monotonic()
    _remove_stale_folders()
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True) as place:
        root = Path(place) / "project"
        _clone(evidence, root)
        _bring_data(evidence, root)
        _run_stages(root, sorted(evidence.stages))
        made, objects = _outputs(root), evidence.objects
        outputs = [compare_outputs.compare_output(path, md5, made.get(path, ""), root / path, objects, tolerance)
                   for path, md5 in track(evidence.outputs.items(), "compare", len(evidence.outputs))]
    other = environment_differences(evidence.facts.get("environment", {}))
    return Reproduction(tuple(outputs), tuple(other), tolerance, time.monotonic() - started)


def _remove_stale_folders() -> None:
    """Remove the folders that killed reproductions left in the system's temporary folder."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = left.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _clone(evidence: Evidence, root: Path) -> None:
    """Clone the commit and apply the stored difference. Git's objects are shared with the project, not copied."""
    top = _git(Path(), "rev-parse", "--show-toplevel").removesuffix("\n")
    if not evidence.tree.blobs:
        raise LinkMissing(f"commit {evidence.commit} holds no file")
    _git(Path(), "clone", "--quiet", "--shared", "--no-checkout", top, str(root))
    _git(root, "checkout", "--quiet", "--detach", evidence.commit)
    if evidence.facts["code"].get("dirty"):
        _git(root, "apply", "--whitespace=nowarn", str(evidence.file("code.diff").resolve()))
    (root / DVC_LOCK).unlink(missing_ok=True)      # the outputs are compared with the stored lock, so no stage reads it


def _git(where: Path, *command: str) -> str:
    done = git.run(*command, where=where)
    if done.returncode:
        words = git.trouble()
        if words:
            raise LinkMissing(words)
        raise LinkBroken(f"git {command[0]}: {git.first_line(done)}")
    return os.fsdecode(done.stdout)


def _bring_data(evidence: Evidence, root: Path) -> None:
    """Write the data version, each file from the first storage that has it undamaged."""
    (root / DATA_DVC).write_bytes(evidence.file("data.dvc").read_bytes())
    try:
        listing = evidence.objects.listing(evidence.data_md5)
    except ObjectNotFound as gone:
        raise LinkMissing(f"data version {evidence.data_md5}: {gone}") from None

    def bring(entry: tuple[str, str]) -> None:
        path = root / paths.DATA / entry[0]
        if not path.resolve().is_relative_to(root.resolve()):
            raise LinkBroken(f"the listing of the data names a file outside of it: {entry[0]}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(evidence.objects.read(entry[1]))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            list(track(pool.map(bring, listing.items()), "data", len(listing)))
        except ObjectNotFound as gone:
            raise LinkMissing(f"data version {evidence.data_md5}: {gone}") from None


def _run_stages(root: Path, addresses: Sequence[str]) -> None:
    """Run `dvc repro --force` in the clone, with the clone's code, cache and state, and this Python."""
    base = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_", "HEARTML_", "DVC_"))}
    env = {**base, "PYTHONPATH": str(root), "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1",
           "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    command = [sys.executable, "-c", _DVC_LAUNCHER.format(parent=os.getpid()), "repro", "--force", *addresses]
    output: list[str] = []
    with subprocess.Popen(command, cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace") as process:
        try:
            for _ in track(_started(process, output), "stages", len(addresses)):
                pass
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise LinkBroken(f"`dvc repro --force` fails: {' | '.join(output[-_SHOWN_LINES:])}")


def _started(process: "subprocess.Popen[str]", output: list[str]) -> Iterator[str]:
    """Yield a line for each stage that starts. All lines are added to `output`."""
    assert process.stdout
    for line in process.stdout:
        output += [line.strip()] if line.strip() else []
        if line.startswith(_STAGE):
            yield line


def _outputs(root: Path) -> dict[str, str]:
    lock = yaml.safe_load((root / DVC_LOCK).read_text(encoding="utf-8"))
    return {out["path"]: str(out.get("md5", "")) for entry in lock["stages"].values() for out in entry.get("outs", [])}


def environment_differences(noted: dict[str, Any]) -> list[str]:
    """How this environment differs from a version's (`environment` of lineage.json), if it can change numbers."""
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
