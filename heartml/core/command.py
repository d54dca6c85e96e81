"""Run a command of this project: telemetry off, and a user's mistake printed as one line."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from heartml.core import paths
from heartml.core.system import machine_errors
from heartml.core.system.errors import HeartMLError
from heartml.core.system.text import one_line

NO_TELEMETRY = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}

_ASKS = frozenset({"-h", "--help", "--version"})


def run(command: click.Command, *, interrupted: int = 130) -> int:
    """Run a command of this project. A user's mistake or an error of the machine is printed as one line.

    Args:
        interrupted: exit status after Ctrl-C; 0 for a command that ends in no other way.

    Returns:
        The exit status.

    Raises:
        Exception: a fault of this project, with its traceback.
    """
    for name, value in NO_TELEMETRY.items():
        os.environ.setdefault(name, value)
    try:
        _check_folder(sys.argv[1:])
        return command(standalone_mode=False) or 0
    except (KeyboardInterrupt, click.Abort):
        return interrupted
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:    # the reader of the output has ended: `heartml models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if machine_errors.is_interruption(error):
            return interrupted
        words = error if isinstance(error, HeartMLError) else machine_errors.explain(error) or _missing_input(error)
        if words is None:
            raise
        click.echo(f"heartml: {one_line(words)}", err=True)
        return 1


def _check_folder(arguments: Sequence[str]) -> None:
    """Refuse a sub-folder of a project, where a command would begin a second, empty registry.

    Raises:
        HeartMLError: the message names the project's folder.
    """
    root = None if _ASKS.intersection(arguments) else paths.enclosing_project(Path.cwd())
    if root:
        raise HeartMLError(f"this folder is inside the project {root}, and commands run in the project's own folder: "
                           f"`cd {shlex.quote(str(root))}`, and name files from there")


def _missing_input(error: Exception) -> str | None:
    """One line, if a stage that is run by hand lacks its inputs. Under DVC this would be a fault of this project."""
    if "DVC_STAGE" in os.environ or not isinstance(error, FileNotFoundError):
        return None
    place = Path(os.path.relpath(error.filename or str(error)))    # pyarrow's message is the path alone
    if place.is_relative_to(paths.ARTIFACTS):
        return f"{place}: not here. An earlier stage makes it: `heartml retrain` runs all that are due, in their order"
    if place.is_relative_to(paths.DATA):
        return f"{place}: not here. `heartml ingest pascal DIR`, or `dvc pull data.dvc`, brings data"
    return None
