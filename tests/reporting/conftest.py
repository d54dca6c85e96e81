"""Fixtures of the tests of pages: a finished project, and its report in four states."""

import shutil
from pathlib import Path

import pytest
from support import finished_project, made_once
from support.report_pages import HOSTILE

from heartml.core import paths
from heartml.core.system import files
from heartml.reporting import task_report


def make_reported(root: Path) -> None:
    """Everything that the report reads, and a patient whose name is hostile."""
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        names = {f"simulated-{100 + child}": f"{HOSTILE}{child}" for child in range(50)}
        finished_project.write_reported_project(root, patch, children=50, seconds=3.0, skill=0.5, names=names)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """What stands in `metrics.json` of a finished project; a copy of it is the working folder of this module."""
    root = tmp_path_factory.mktemp("reported") / "project"
    shutil.copytree(made_once.folder(tmp_path_factory, "reported", make_reported), root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield files.read_json(paths.evaluation(finished_project.TASK) / "metrics.json")


@pytest.fixture(scope="module")
def pages(project):
    """Before the gate, promoted, refused, and first of its kind."""
    return {
        "unjudged": task_report.render(finished_project.TASK, None, None),
        "promoted": task_report.render(finished_project.TASK, finished_project.gate_verdict(promote=True),
                                       finished_project.lineage_outline()),
        "refused": task_report.render(finished_project.TASK, finished_project.gate_verdict(promote=False),
                                      finished_project.lineage_outline()),
        "first": task_report.render(finished_project.TASK, finished_project.gate_verdict(promote=True, champion=None),
                                    finished_project.lineage_outline()),
    }
