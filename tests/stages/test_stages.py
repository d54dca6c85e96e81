"""The stages of dvc.yaml are the modules of `heartml.stages`, each run by the command of its name."""

import importlib
import pkgutil
import sys
from pathlib import Path

import pytest
import yaml
from support.workspaces import ROOT

import heartml.stages
from heartml.cli import cli, encoders
from heartml.cli import stages as commands
from heartml.core import command

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
OF_ALL_TASKS = ("validate", "pretrain")
MODULES = [module.name for module in pkgutil.iter_modules(heartml.stages.__path__)]


def test_each_stage_is_a_module_a_command_and_an_entry_of_dvc_yaml() -> None:
    commands_of = {command.name for command in (*commands.COMMANDS, encoders.pretrain)}
    assert set(MODULES) == set(STAGES) == commands_of


@pytest.mark.parametrize("name", MODULES)
def test_dvc_runs_the_command_of_the_stage(name: str) -> None:
    stage = STAGES[name].get("do", STAGES[name])
    assert stage["cmd"].split()[:4] == ["python", "-m", "heartml", name]
    module = importlib.import_module(f"heartml.stages.{name}")
    assert (module.__doc__ or "").startswith(f"Stage `{name}`: ")
    assert callable(module.run)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in OF_ALL_TASKS])
def test_a_stage_of_a_task_that_is_none_ends_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    arguments = ["--encoder", "logspec"] if name == "features" else []
    monkeypatch.setattr(sys, "argv", ["heartml", name, "--task", "nope", *arguments])
    assert command.run(cli) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("heartml: ") and "nope" in line
