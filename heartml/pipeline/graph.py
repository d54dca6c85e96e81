"""The graph of stages as DVC sees it: which stages there are, what each needs, and which are stale.

`dvc.yaml` is the only graph. Nothing here depends on the name of a stage, or on Prefect.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartml.core import paths
from heartml.core.system import machine_errors
from heartml.core.system.errors import HeartMLError
from heartml.core.system.locks import Busy, exclusive
from heartml.pipeline import recovery, verify_outputs

if TYPE_CHECKING:
    from dvc.repo import Repo

LOCK = paths.LOCKS / "pipeline.lock"
_POLL_S = 0.5
_LISTED = 3      # files that a message names


class PipelineError(HeartMLError):
    """The graph cannot be run; the message says what is missing and what to do."""


@dataclass(frozen=True)
class Stage:
    """One node of DVC's graph.

    Attributes:
        address: DVC's name of the stage, `search@circor-murmur` or `data.dvc`.
        needs: addresses of the stages whose outputs it reads.
        outs: paths that it writes, relative to the root.
        runs: whether it has a command; data that DVC only tracks has none.
        changed: why DVC calls it stale, in words; empty if it is fresh.
        parts: whether parts of its work can be computed before it, see `heartml.pipeline.parts`.
    """

    address: str
    needs: tuple[str, ...]
    outs: tuple[str, ...]
    runs: bool
    changed: str
    parts: bool = False


@dataclass(frozen=True)
class Plan:
    """The graph at one moment; every stage comes after the stages that it needs."""

    stages: tuple[Stage, ...]

    @property
    def due(self) -> tuple[Stage, ...]:
        """The stale stages and all stages after them. Whether the latter must run is known when it is their turn."""
        due: dict[str, Stage] = {}
        for stage in self.stages:
            if stage.changed or any(need in due for need in stage.needs):
                due[stage.address] = stage
        return tuple(due.values())

    def upstream_of(self, folder: Path) -> frozenset[str]:
        """Addresses of the stages that write into `folder`, and of all stages that these need."""
        found: set[str] = set()
        for stage in reversed(self.stages):
            if any(Path(out).is_relative_to(folder) for out in stage.outs):
                found.add(stage.address)
            if stage.address in found:
                found.update(stage.needs)
        return frozenset(found)


@contextlib.contextmanager
def hold_pipeline(
    *, wait: bool = True, command: str = "heartml retrain", log_line: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold this folder's data and artifacts: meanwhile no other retraining, ingest or DVC command works on them.

    What a killed run left is repaired first.

    Args:
        wait: wait until others have finished, and log that; otherwise refuse.
        command: the command that asks, for the message.
        log_line: gets the message that there is a wait, and for whom; by default it goes to stderr.

    Raises:
        Busy: another process works in this folder, and `wait` is false.
    """
    log_line = log_line or _to_stderr
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(LOCK, wait_s=0))
        except Busy as busy:
            if not wait:
                raise Busy(f"another retraining or ingest is at work in this folder ({busy}). "
                           "Without --no-wait this one would take its turn") from None
            holder = str(busy).rpartition("held by ")[2]
            log_line(f"{command}: waiting for another retraining or ingest in this folder ({holder})")
            stack.enter_context(exclusive(LOCK))
        recovery.repair()
        _await_dvc(command, log_line, wait=wait)
        recovery.clean_cache()
        yield


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _await_dvc(command: str, log_line: Callable[[str], None], *, wait: bool) -> None:
    logged = False
    while holders := recovery.dvc_at_work():
        if not wait:
            raise Busy(f"DVC is at work in this folder ({holders[0]}). Without --no-wait this one would take its turn")
        if not logged:
            log_line(f"{command}: waiting for {holders[0]}")
            logged = True
        time.sleep(_POLL_S)


def plan(*, force: bool = False) -> Plan:
    """Ask DVC for its graph and for its stale stages. With `force` every stage that has a command is stale.

    Raises:
        PipelineError: DVC cannot read the graph, or data that no stage makes are missing or damaged.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(".", _wait_for_lock=True) as repo:
            return _plan(repo, repo.status(), force=force)
    except DvcException as error:
        raise PipelineError(machine_errors.explain(error) or f"DVC cannot read the pipeline: {error}") from None


def _plan(repo: "Repo", status: Mapping[str, Any], *, force: bool) -> Plan:
    graph = repo.index.graph
    nodes = {node.addressing: node for node in repo.index.stages}
    needs = {address: tuple(sorted(n.addressing for n in graph.successors(node))) for address, node in nodes.items()}
    made = [Path(out.fs_path) for node in nodes.values() for out in node.outs]
    stages = []
    for address in TopologicalSorter(needs).static_order():
        node, changes = nodes[address], _changes(status.get(address, []))
        if _is_missing_and_unread(node, graph):
            changes = {}
        else:
            _refuse_missing(address, node, changes, made)
        words = ", ".join(f"{path} {how}" for path, how in changes.items())
        stages.append(Stage(
            address, needs[address], tuple(os.path.relpath(out.fs_path, repo.root_dir) for out in node.outs),
            bool(node.cmd), words or ("asked for by --force" if force and node.cmd else ""),
            bool((node.meta or {}).get("parts")),
        ))
    inputs = {need for stage in stages if stage.changed for need in stage.needs}
    for address in sorted(inputs):
        if not nodes[address].cmd:
            _refuse_damaged(address, nodes[address].outs)
    return Plan(tuple(stages))


def _changes(entries: list[Any]) -> dict[str, str]:
    """DVC's status of one stage, `[{"changed deps": {path: how}}, "changed command"]`, as path -> how."""
    found: dict[str, str] = {}
    for entry in entries:
        for changed in entry.values() if isinstance(entry, dict) else [{"command": "changed"}]:
            for path, how in changed.items():
                found |= how if isinstance(how, dict) else {str(path): str(how)}   # a parameter is name -> how
    return found


def _is_missing_and_unread(node: Any, graph: Any) -> bool:
    """Whether these are data that are not here and that no stage reads: weights that were not pulled.

    params.yaml names weights by their hash, so no stage depends on their file. One that needs them says so.
    """
    return not node.cmd and not any(True for _ in graph.predecessors(node)) and not any(out.exists for out in node.outs)


def _refuse_missing(address: str, node: Any, changes: Mapping[str, str], made: list[Path]) -> None:
    if not node.cmd:
        gone = [str(out) for out in node.outs if not out.exists]
        if gone:
            raise PipelineError(f"{', '.join(gone)}: not here. `dvc pull {address}` fetches it from the remote, "
                                "`heartml ingest` makes it new")
    for dep in node.deps:
        inside = any(Path(dep.fs_path).is_relative_to(out) or out.is_relative_to(dep.fs_path) for out in made)
        if changes.get(str(dep)) == "deleted" and not inside:
            raise PipelineError(f"{dep}: not here, and no stage makes it (needed by {address}). "
                                "`heartml ingest` brings data in")


def _refuse_damaged(address: str, outs: list[Any]) -> None:
    """Check data that a stage is about to read, because DVC does not check what it restores from its cache."""
    wrong = [out for out in outs if not verify_outputs.is_intact(out)]
    if not wrong:
        return
    names = [f"{out}/{name}" for out in wrong for name in verify_outputs.changed_files(out)]
    damaged = verify_outputs.move_damaged(wrong)
    if names and not damaged:
        files = "1 file is" if len(names) == 1 else f"{len(names)} files are"
        more = ", ..." if len(names) > _LISTED else ""
        raise PipelineError(f"{', '.join(map(str, wrong))}: {files} missing or changed: {', '.join(names[:_LISTED])}"
                            f"{more}. `dvc checkout --force {address}` puts back what {address} names")
    raise PipelineError(
        f"{', '.join(map(str, wrong))}: not the bytes that {address} names. {len(damaged)} damaged objects were "
        f"taken out of DVC's cache (into {verify_outputs.DAMAGED}). `dvc pull --force {address}` fetches whole ones "
        f"from the remote; where it has none, move {wrong[0]} and {address} away and run `heartml ingest` again")
