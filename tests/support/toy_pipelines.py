"""A project of four small stages, so that what runs stages is tested without what the stages do.

    one -> two -> four      each stage writes its inputs' texts behind its own name
    one -> three -> four    `three` and `two` are siblings; parameters say how long a stage takes and which one fails
"""

import json
import subprocess
from pathlib import Path

from support.workspaces import ROOT, Workspace

GRAPH = {"one": [], "two": ["one"], "three": ["one"], "four": ["two", "three"]}
STAGE = '''
import json, sys, time, os
from pathlib import Path
from heartml.core.stage import StageError, stage
from heartml.core.system.processes import die_with_dvc
from heartml.core.system.errors import HeartMLError
die_with_dvc()
name, *needs = sys.argv[1:]
numbers = json.loads(Path("toy.json").read_text())
try:
    with stage(name) as log:
        with Path("runs.txt").open("a") as runs:
            print(name, file=runs)
        print("started", name, os.getpid(), flush=True)
        time.sleep(numbers["seconds"].get(name, 0))
        if numbers["fails"] == name:
            raise StageError(f"recording 3f2a: {name} cannot read it. Run `heartml ingest` again.")
        if numbers["crashes"] == name:
            raise ZeroDivisionError("a fault of ours")
        texts = [Path(f"{need}.txt").read_text() for need in needs]
        Path(f"{name}.txt").write_text("".join(texts) + name + str(numbers["version"].get(name, "")) + "\\n")
        log.add("wrote a line")
except HeartMLError as error:
    print(f"heartml: {error}", file=sys.stderr)
    sys.exit(1)
'''


def make(root: Path) -> Workspace:
    """A git and DVC repository with the toy graph in the empty or missing folder `root`; nothing has run yet."""
    root.mkdir(parents=True, exist_ok=True)
    stages = {
        name: {
            "cmd": f"python toy.py {' '.join([name, *needs])}", "deps": ["toy.py", *(f"{need}.txt" for need in needs)],
            "params": [{"toy.json": [f"version.{name}"]}], "outs": [f"{name}.txt"],
        }
        for name, needs in GRAPH.items()
    }
    (root / "dvc.yaml").write_text(json.dumps({"stages": stages}))   # JSON is YAML
    (root / "toy.py").write_text(STAGE)
    (root / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (root / ".gitignore").write_text("".join(f"/{name}.txt\n" for name in (*GRAPH, "runs")) + "/.heartml\n")
    set_numbers(root)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    (root / ".dvc").mkdir()              # `dvc init` takes a second
    (root / ".dvc/config").touch()
    (root / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    workspace = Workspace(root)
    workspace.commit()
    return workspace


def set_numbers(root: Path, *, seconds: dict[str, float] | None = None, fails: str = "", crashes: str = "",
                **version: int) -> None:
    """How long each stage takes, which one fails by a user's error or a fault, and parameters that make one stale."""
    versions = dict.fromkeys(GRAPH, 0) | version
    numbers = {"seconds": seconds or {}, "fails": fails, "crashes": crashes, "version": versions}
    (root / "toy.json").write_text(json.dumps(numbers))


def stages_that_ran(root: Path) -> list[str]:
    """The stages that really ran since this was asked last, in the order of their starts."""
    runs = root / "runs.txt"
    names = runs.read_text().split() if runs.exists() else []
    runs.unlink(missing_ok=True)
    return names
