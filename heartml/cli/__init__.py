"""The command line: `heartml COMMAND`. Heavy libraries are imported inside the command that needs them.

A user's mistake ends in one line on stderr and exit status 1 (2 for wrong usage); a traceback is a fault of ours.
"""

import os
import sys

import click

from heartml.cli import audit as trust
from heartml.cli import data, evaluation, inference, lineage, models, stages
from heartml.core.command import run
from heartml.core.system.processes import die_with_dvc


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


for _module in (data, stages, models, evaluation, lineage, trust, inference):
    for _command in _module.COMMANDS:
        cli.add_command(_command)


def main() -> None:
    """Entry point of `heartml` and `python -m heartml`."""
    if "DVC_STAGE" in os.environ:   # before the slow imports of a stage, so that no orphan comes to life
        die_with_dvc()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")   # before numpy is imported, or it does not count
    sys.exit(run(cli))


