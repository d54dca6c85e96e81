"""Every command: defined once, described with an example or its outputs, listed in the help of `heartml`."""

import re
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from heartml.cli import audit, cli, data, encoders, evaluation, export, inference, init, lineage, main, models, stages

MODULES = (audit, data, encoders, evaluation, export, inference, init, lineage, models, stages)


def test_every_command_is_in_one_module_and_the_group_has_no_other() -> None:
    names = [command.name for module in MODULES for command in module.COMMANDS]
    assert len(names) == len(set(names))
    assert set(names) == set(cli.commands)


def test_every_command_of_a_module_is_among_its_commands() -> None:
    for module in MODULES:
        own = {value for value in vars(module).values() if isinstance(value, click.Command)}
        below = {command for group in own if isinstance(group, click.Group) for command in group.commands.values()}
        assert own - below == set(module.COMMANDS), module.__name__


def test_the_first_page_lists_every_command_by_what_it_is_for() -> None:
    head = CliRunner().invoke(cli, ["--help"]).output.partition("\nOptions:")[0]
    for name in cli.commands:
        assert re.search(rf"[ ,]{name}(,|\n)", head), name


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_help_says_what_the_command_is_for_and_every_option_what_it_does(name: str) -> None:
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0
    command = cli.commands[name]
    assert command.help and command.help.splitlines()[0].endswith(".")
    lacking = [option.name for option in command.params if isinstance(option, click.Option) and not option.help]
    assert not lacking
    assert CliRunner().invoke(cli, [name, "--no-such-option"]).exit_code == 2


def test_a_command_with_a_closed_stderr_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    monkeypatch.setattr("sys.argv", ["heartml", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert sys.stderr is not None
    print("a message", file=sys.stderr)
    sys.stderr.close()


def test_a_stage_takes_its_task_and_the_divided_ones_a_part() -> None:
    options = {command.name: {option.name for option in command.params} for command in stages.COMMANDS}
    assert "task" not in options.pop("validate"), "all data are validated at once"
    assert all("task" in named for named in options.values())
    done = CliRunner().invoke(cli, ["features", "--task", "a-b", "--encoder", "logspec", "--part", "3/2"])
    assert done.exit_code == 2 and "3/2" in done.output


def test_a_score_table_is_named_parquet(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["score", str(tmp_path), "--to", "scores.csv"])
    assert done.exit_code == 2
    assert "name it scores.parquet" in done.output
