"""Part of a stale stage's work, before the stage and on any machine that sees this folder.

`python -m heartml.pipeline.parts ADDRESS PARENT K/N [--force]` runs the stage's own command with `--part K/N`. DVC need
not know: what a part makes goes where the stage looks first, under names that say by content what it is. A stage that
can be divided so says `meta: {parts: true}` in dvc.yaml.
"""

import os
import shlex
import sys
from collections.abc import Callable, Sequence

from heartml.core.system.processes import die_with_parent
from heartml.pipeline import run_stage, stage_process


def run(address: str, words: str, *, force: bool, say: Callable[[str], None]) -> bool:
    """Do part `words` (`2/3`) of a stage in a process of its own; whether that went well. The stage does what is left.

    Its output is kept under `.heartml/logs`, as a stage's is.
    """
    run_stage.LOGS.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "heartml.pipeline.parts", address, str(os.getpid()), words] + ["--force"] * force
    log_file = run_stage.log_file(f"{address}.{words.replace('/', '-')}")
    with run_stage.started(command) as process, log_file.open("w", encoding="utf-8") as log:
        assert process.stdout
        for line in process.stdout:
            log.write(line)
            if line.strip():
                say(line.rstrip())
    return process.returncode == 0


def command_of(address: str, *, force: bool) -> list[str]:
    """The stage's command; empty where DVC finds the stage fresh, and nothing has to be done ahead of it."""
    from dvc.repo import Repo

    with Repo(".", _wait_for_lock=True) as repo:
        if not force and not repo.status([address]):
            return []
        [stage] = [node for node in repo.index.stages if node.addressing == address]
        return shlex.split(stage.cmd)


def main(arguments: Sequence[str]) -> None:
    """Entry point; the stage's command takes the place of this process."""
    address, parent, part, *options = arguments
    die_with_parent(int(parent))
    stage_process.environment()
    os.environ["HEARTML_PARENT"] = parent
    command = command_of(address, force="--force" in options)
    if command:
        os.execvp(command[0], [*command, "--part", part])


if __name__ == "__main__":
    main(sys.argv[1:])
