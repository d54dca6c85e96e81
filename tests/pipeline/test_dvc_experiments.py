"""The lines of docs/dvc-experiments.md, run one after the other in a project that has been retrained."""

import re
import subprocess
from pathlib import Path

import pytest
from support.workspaces import ROOT, Workspace

PAGE = ROOT / "docs/dvc-experiments.md"


@pytest.fixture
def project(retrained: Workspace, tmp_path: Path) -> Workspace:
    copy = retrained.copy(tmp_path / "project")
    copy.commit("retrained")
    return copy


@pytest.mark.thorough("it trains three times")
def test_every_line_of_the_page_does_what_it_says(project: Workspace) -> None:
    block = re.search(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block
    said: dict[str, str] = {}
    changed: dict[str, str] = {}
    for line in block[1].splitlines():
        command = line.partition("  #")[0].strip()
        done = subprocess.run(["bash", "-c", command], cwd=project.root, env={**project.environment, "COLUMNS": "300"},
                              text=True, capture_output=True, check=False, timeout=900)
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        name = " ".join(command.split()[:3])
        said[name] = done.stdout
        changed[name] = subprocess.run(["git", "status", "--short"], cwd=project.root, text=True, capture_output=True,
                                       check=True).stdout
    assert "Running stage 'ensemble@" in said["dvc exp run"] and "Running stage 'search@" not in said["dvc exp run"]
    assert changed["dvc exp run"].split() == ["M", "dvc.lock", "M", "params.yaml"], "and no other file"
    assert "ensemble.max_members" in said["dvc exp show"] and "search.trials" not in said["dvc exp show"]
    assert re.search(r"params.yaml\s+ensemble.max_members\s+5\s+1", said["dvc params diff"])
    assert "held_out." in said["dvc metrics diff"] or "out_of_fold." in said["dvc metrics diff"]
    assert (project / "dvc_plots/index.html").stat().st_size > 10_000
    assert changed["git checkout params.yaml"] == ""
    assert changed["dvc exp apply"].split() == ["M", "dvc.lock", "M", "params.yaml"]
