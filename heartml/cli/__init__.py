"""The command line: `heartml COMMAND`. Heavy libraries are imported inside the command that needs them.

A user's mistake ends in one line on stderr and exit status 1, wrong usage in exit status 2. A traceback is a fault of
ours.
"""

import os
import sys
from pathlib import Path

import click

from heartml.cli import audit, data, encoders, evaluation, export, inference, init, lineage, models, stages
from heartml.core.command import run
from heartml.core.system.processes import collect_garbage_less_often, die_with_dvc


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="heartml")
def cli() -> None:
    """From stethoscope recordings to an audited, registered heart-sound model. Not a medical device.

    \b
    Bring data in           simulate, init, ingest, tasks
    Train and release       retrain, models, promote, rollback, retire, compare, card
    Use a model             predict, score, monitor, validate-source
    Out of the project      export, serve
    Pre-trained encoders    weights, embed, pretrain
    Other evaluations       leave-out, protocol, probe
    Audit                   lineage, trace, audit, verify, sign, withdraw
    Single stages           validate, split, features, search, ensemble, evaluate, robustness, report
                            (`heartml retrain` and `dvc repro` run them)

    \b
    Exit status of every command:
      0  done
      1  an error; one line on stderr says what is wrong and what to do
      2  wrong usage
    `heartml monitor` has one more.

    \b
    Example, the demo data:      make run
    Example, your own download:  heartml ingest pascal DIR && heartml retrain
    Example, your own classes:   heartml init DIR && heartml ingest generic DIR && heartml retrain
    """


for _module in (data, init, stages, models, evaluation, lineage, audit, inference, encoders, export):
    for _command in _module.COMMANDS:
        cli.add_command(_command)


def main() -> None:
    """Entry point of `heartml` and `python -m heartml`."""
    if "DVC_STAGE" in os.environ:   # before the slow imports, so that no stage goes on without its DVC
        die_with_dvc()
    collect_garbage_less_often()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")   # numpy reads these when it is imported
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")     # it would look for some in every package: 0.1 s
    give_a_stderr()
    sys.exit(run(cli))


def give_a_stderr() -> None:
    """Send messages to nowhere where stderr is closed (`2>&-`): Python then has none, and libraries write to it."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends


