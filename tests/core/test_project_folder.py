"""A command in a sub-folder of the project says which folder it wants, and begins nothing there."""

from pathlib import Path

import click
import pytest

from heartml.core import command, paths


@click.command()
def begin() -> None:
    Path(".heartml").mkdir()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder that is a project, with a folder in it."""
    root = tmp_path / "ada's run #2"
    (root / "docs/deep").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        (root / name).touch()
    return root


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["heartml", *arguments])
    return command.run(begin)


@pytest.mark.parametrize("below", ["docs", "docs/deep"])
def test_in_a_sub_folder_the_project_s_folder_is_named(
    below: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project / below, monkeypatch) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(project) in said and "`cd '" in said
    assert not (project / below / ".heartml").exists()


def test_elsewhere_and_for_help_a_command_runs(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project / "docs", monkeypatch, "--help") == 0
    assert "Usage" in capsys.readouterr().out
    for folder in (project, tmp_path):
        assert run(folder, monkeypatch) == 0
        assert (folder / ".heartml").is_dir()


def test_a_project_in_a_project_is_one_of_its_own(project: Path) -> None:
    (project / "docs/params.yaml").touch()
    assert paths.enclosing_project(project / "docs") is None
    assert paths.enclosing_project(project / "docs/deep") == project, "one without stages is none"
    (project / "docs/dvc.yaml").touch()
    assert paths.enclosing_project(project / "docs/deep") == project / "docs"
