"""A project in a folder of its own, as a user has it: git, DVC, parameters, this code; commands run in it."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from support import fork_server

ROOT = Path(__file__).parents[2]
REAL_DATA = Path(os.environ.get("HEARTML_REAL_DATA") or ROOT.parent / "shared" / "datasets")
_FILES = ("params.yaml", "dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/plots.html", "pyproject.toml",
          "splits/README.md", "requirements.lock")
_GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")


@dataclass(frozen=True)
class Workspace:
    """`root` is a git and DVC repository with a copy of `heartml/` and `flows/`."""

    root: Path

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    @property
    def environment(self) -> dict[str, str]:
        """For commands: this Python first, nothing of the caller's services, quiet."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "HEARTML_", "DVC_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {**kept, "PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(self.root), "NO_COLOR": "1"}

    def command(self, *arguments: object) -> list[str]:
        """`heartml ARGUMENTS` with this Python."""
        return [sys.executable, "-m", "heartml", *map(str, arguments)]

    def run(self, *arguments: object, check: bool = True, timeout_s: float = 900, **env: str) -> "Done":
        """Run `heartml ARGUMENTS` here, in a fork (`fork_server`); with `check` a failure shows what it printed."""
        done = fork_server.run(list(map(str, arguments)), self.root, {**self.environment, **env}, timeout_s)
        assert done.returncode == 0 or not check, f"heartml {arguments}: {done.stdout}\n{done.stderr}"
        return done

    def run_process(self, *arguments: object, check: bool = True, timeout_s: float = 900, **env: str) -> "Done":
        """As `run`, in a new process: for what an environment changes before Python starts."""
        done = subprocess.run(self.command(*arguments), cwd=self.root, env={**self.environment, **env}, text=True,
                              capture_output=True, check=False, timeout=timeout_s, stdin=subprocess.DEVNULL)
        assert done.returncode == 0 or not check, f"heartml {arguments}: {done.stdout}\n{done.stderr}"
        return done

    def start(self, *arguments: object, **env: str) -> "subprocess.Popen[str]":
        """Start `heartml ARGUMENTS` here, to be waited for or killed; Ctrl-C reaches it, as it does in a terminal."""
        return subprocess.Popen(self.command(*arguments), cwd=self.root, env={**self.environment, **env}, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                preexec_fn=_restore_ctrl_c)  # noqa: PLW1509 - the suite has no threads

    def commit(self, message: str = "state") -> None:
        """Commit all that git does not ignore."""
        subprocess.run([*_GIT, "add", "-A"], cwd=self.root, check=True)
        subprocess.run([*_GIT, "commit", "-qm", message, "--allow-empty"], cwd=self.root, check=True)

    def copy(self, to: Path) -> "Workspace":
        """The same project elsewhere: data, cache and all."""
        shutil.copytree(self.root, to, symlinks=True)
        return Workspace(to)


Done = subprocess.CompletedProcess[str]


def _restore_ctrl_c() -> None:
    """A suite that was started in the background ignores SIGINT, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def make(root: Path) -> Workspace:
    """A new project without data in the empty or missing folder `root`."""
    for name in _FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, root / name)
    for package in ("heartml", "flows"):
        shutil.copytree(ROOT / package, root / package)      # with its bytecode: a start costs less
    (root / "bundled").mkdir()
    subprocess.run([*_GIT, "init", "-q", "-b", "main"], cwd=root, check=True)
    workspace = Workspace(root)
    workspace.commit("a project without data")
    return workspace
