"""Precomputed parts: part of a stale stage's work, done before the stage, on any machine that sees this folder.

`python -m heartml.pipeline.parts ADDRESS PARENT K/N [--force]` runs the stage's own command with `--part K/N`. DVC does
not take part in this. The results go into a cache that the stage looks into first, addressed by their content. A stage
whose work can be divided says `parts:` in the `meta` of dvc.yaml.
"""

import os
import shlex
import sys
from collections.abc import Callable, Sequence

from heartml.core.system.processes import die_with_parent
from heartml.pipeline import run_stage, stage_process


def run(address: str, part: str, *, force: bool, log_line: Callable[[str], None]) -> bool:
    """Compute one part of a stage in a process of its own. The stage computes whatever is missing afterwards.

    Args:
        address: DVC's name of the stage.
        part: `2/3`.
        force: compute it also where DVC finds the stage fresh.
        log_line: gets each line of output; the whole output is written to `.heartml/logs`.

    Returns:
        Whether it succeeded.
    """
    run_stage.LOGS.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "heartml.pipeline.parts", address, str(os.getpid()), part] + ["--force"] * force
    log_file = run_stage.log_file(f"{address}.{part.replace('/', '-')}")
    with run_stage.stage_subprocess(command) as process, log_file.open("w", encoding="utf-8") as log:
        assert process.stdout
        for line in process.stdout:
            log.write(line)
            if line.strip():
                log_line(line.rstrip())
    return process.returncode == 0


def stage_command(address: str, *, force: bool) -> list[str]:
    """The stage's command; empty where DVC finds the stage fresh, so that nothing has to be computed."""
    from dvc.repo import Repo

    with Repo(".", _wait_for_lock=True) as repo:
        if not force and not repo.status([address]):
            return []
        [stage] = [node for node in repo.index.stages if node.addressing == address]
        return shlex.split(stage.cmd)


def main(arguments: Sequence[str]) -> None:
    """Entry point; the arguments are ADDRESS, PARENT, K/N and perhaps --force. This process becomes the command."""
    address, parent, part, *options = arguments
    die_with_parent(int(parent))
    stage_process.environment()
    os.environ["HEARTML_PARENT"] = parent
    command = stage_command(address, force="--force" in options)
    if command:
        os.execvp(command[0], [*command, "--part", part])


if __name__ == "__main__":
    main(sys.argv[1:])
