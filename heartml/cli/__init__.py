"""The command line: `heartml COMMAND`. Heavy libraries are imported inside the command that needs them.

A user's mistake ends in one line on stderr and exit status 1 (2 for wrong usage); a traceback is a fault of ours.
"""

import os
import sys
from pathlib import Path

import click

from heartml.cli import audit, data, evaluation, models, service, stages, trust
from heartml.core import paths, trouble
from heartml.core.errors import HeartMLError
from heartml.core.process import die_with_dvc
from heartml.core.text import one_line

QUIET = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="heartml")
def cli() -> None:
    """From stethoscope recordings to an audited, registered heart-sound model. Not a medical device.

    \b
    Data in      simulate, ingest, tasks
    Stages       validate, split, features, search, ensemble, evaluate, robustness, report   (`dvc repro` runs them)
    Flow         retrain, models, promote, rollback, compare, card
    Evaluation   leave-out, protocol
    Auditor      lineage, trace, withdraw, audit, verify, sign
    Model out    predict, score, monitor

    Start with `make run`, or: heartml ingest pascal DIR && heartml retrain
    """


for _module in (data, stages, models, evaluation, audit, trust, service):
    for _command in _module.COMMANDS:
        cli.add_command(_command)


def main() -> None:
    """Entry point of `heartml` and `python -m heartml`."""
    if "DVC_STAGE" in os.environ:   # before the slow imports of a stage, so that no orphan comes to life
        die_with_dvc()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")   # before numpy is imported, or it does not count
    sys.exit(run(cli))


def run(command: click.Command, *, interrupted: int = 130) -> int:
    """Run a command of this project and tell a user's mistake, or the machine's, in one line.

    Args:
        interrupted: what Ctrl-C means: 0 for what ends in no other way.

    Returns:
        The exit status.

    Raises:
        Exception: a fault of ours, with its traceback.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        return command(standalone_mode=False) or 0
    except (KeyboardInterrupt, click.Abort):
        return interrupted
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:    # who reads the output has gone: `heartml models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if trouble.interrupted(error):
            return interrupted
        words = error if isinstance(error, HeartMLError) else trouble.in_words(error) or _not_made(error)
        if words is None:
            raise
        click.echo(f"heartml: {one_line(words)}", err=True)
        return 1


def _not_made(error: Exception) -> str | None:
    """One line, where a stage is run by hand and lacks what comes before it; under DVC the fault would be ours."""
    if "DVC_STAGE" in os.environ or not isinstance(error, FileNotFoundError):
        return None
    place = Path(os.path.relpath(error.filename or str(error)))    # pyarrow gives the path alone, as the message
    if place.is_relative_to(paths.ARTIFACTS):
        return f"{place}: not here. An earlier stage makes it: `heartml retrain` runs all that are due, in their order"
    if place.is_relative_to(paths.DATA):
        return f"{place}: not here. `heartml ingest pascal DIR`, or `dvc pull data.dvc`, brings data"
    return None
