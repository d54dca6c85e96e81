"""Evaluations outside the stages: the protocol of a published study, leaving a collection out, probing encoders."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click


def _names(_: click.Context, option: click.Parameter, given: Sequence[str]) -> tuple[str, ...]:
    """Names given one by one, or several in one with commas or spaces between them."""
    names = tuple(name for words in given for name in words.replace(",", " ").split())
    if given and not names:
        raise click.BadParameter("no name in it", param=option)
    return names


@click.group()
def protocol() -> None:
    """Score our models by the protocol of a published study."""


@protocol.command("circor-m2d")
@click.argument("named", metavar="DIR", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--splits", "first", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              metavar="CSV...", help="One or several CSVs of patient_id,part (train, validation, test).")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Number of runs of each split.")
@click.option("--system", "systems", multiple=True, type=click.Choice(["single", "ensemble", "finetune"]),
              default=["single", "ensemble"], show_default=True, help="What is scored; may be given several times.")
@click.option("--encoder", metavar="NAME", help="For the system finetune: an encoder of params.yaml.")
@click.option("--recipe", metavar="NAME", default="m2d_circor", show_default=True,
              help="For the system finetune: m2d_circor, ast_circor or small_vit; `params`: what params.yaml has in "
                   "search.network_parameters.finetune.")
@click.option("--json", "to", type=click.Path(path_type=Path, dir_okay=False), help="Write all numbers to this file.")
def circor_m2d(named: tuple[Path, ...], first: Path, seeds: int, systems: tuple[str, ...], encoder: str | None,
               recipe: str, to: Path | None) -> None:
    """CirCor murmurs by the protocol of the M2D study (arXiv 2404.17107).

    DIR is CirCor in the publisher's layout, or a part of it. For each split it trains one network with the paper's
    decision rule, and the ensemble. It prints weighted accuracy, UAR and recalls on the test patients, the same without
    patients whose second id is in the development part, and the outcome cost of the 2022 challenge. The system finetune
    trains a pre-trained encoder and its head by the study's own recipe; whoever has M2D's file declares it in
    params.yaml (docs/encoders.md). After a kill, the same command goes on.

    \b
    Reads        DIR, the CSVs, params.yaml (run it in a project)
    Writes       finished runs in .heartml/protocol; with --json all numbers
    Exit status  0: done; 1: it could not be done; 2: wrong usage

    \b
    Examples:
    heartml protocol circor-m2d DIR --splits split1.csv split2.csv split3.csv --json out.json
    heartml protocol circor-m2d DIR --splits split1.csv split2.csv split3.csv --system finetune --encoder m2d
    """
    from heartml.core import config
    from heartml.core.system import files
    from heartml.evaluation.protocols import circor_m2d as study
    from heartml.evaluation.protocols import table, tuned

    folders, more = [p for p in named if p.is_dir()], [p for p in named if not p.is_dir()]
    if len(folders) != 1:
        raise click.UsageError(f"name one folder, not {len(folders)}")
    params, wanted = config.load(), None
    if "finetune" in systems:
        search = params.search.for_task(study.MURMUR)
        wanted = tuned.of(encoder, None if recipe == "params" else recipe, search, params)
    elif encoder:
        raise click.UsageError("--encoder is for the system finetune: add --system finetune")
    found = study.run(folders[0], [first, *more], params, seeds, systems, wanted)
    table.show(found)
    if to:
        files.write_json(to, found)


@protocol.command("opera")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--encoders", "encoders", multiple=True, required=True, callback=_names, metavar="NAMES",
              help="Encoders of params.yaml, \"logspec mn04\"; may be given several times.")
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help="Number of fits of each probe.")
@click.option("--json", "to", type=click.Path(path_type=Path, dir_okay=False), help="Write all numbers to this file.")
def opera(folder: Path, encoders: tuple[str, ...], seeds: int, to: Path | None) -> None:
    """Respiratory sounds by the probe of the OPERA benchmark (arXiv 2406.16148).

    DIR holds icbhi/, kauh/, coswara/ or coughvid/, each in its publisher's layout; tasks whose folder is missing are
    named and left out. Each encoder gets the benchmark's linear probe, pooled over time and bands, and over time alone.
    The published split is used where its file lies in DIR; else parts are drawn by persons. Beside these tasks stands
    ICBHI 2017's own, each breath in four classes. After a kill, the same command goes on.

    \b
    Reads        DIR, params.yaml (run it in a project), the weights
    Writes       pooled vectors in .heartml/protocol; with --json all numbers
    Exit status  0: done; 1: it could not be done; 2: wrong usage

    \b
    Example:
    heartml protocol opera DIR --encoders "logspec mn04" --json opera.json
    """
    from heartml.core import config
    from heartml.core.system import files
    from heartml.evaluation.protocols import opera as study
    from heartml.evaluation.protocols.opera import table

    found = study.run(folder, encoders, config.load(), seeds)
    if to:
        files.write_json(to, found)
    table.show(found)


@protocol.command("regression")
@click.argument("table", metavar="TABLE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--encoders", "encoders", multiple=True, required=True, callback=_names, metavar="NAMES",
              help="Encoders of params.yaml, \"logspec mn04\"; may be given several times.")
@click.option("--organ", type=click.Choice(["heart", "lung"]), default="lung", show_default=True,
              help="Section of `organs` in params.yaml: rate and band of the encoders.")
@click.option("--json", "to", type=click.Path(path_type=Path, dir_okay=False), help="Write all numbers to this file.")
def regression(table: Path, encoders: tuple[str, ...], organ: Literal["heart", "lung"], to: Path | None) -> None:
    """A number for each recording, such as lung function or a breathing rate, predicted from encoders.

    TABLE is a CSV with the columns path, patient_id and value, beside the recordings. Ridge regression on pooled
    vectors predicts each person by a fit on all others. It prints the mean absolute error, in units and in percent, and
    the difference to the error of the others' mean, each with its interval over persons. There is no search and no
    model for numbers. After a kill, the same command goes on.

    \b
    Reads        TABLE, the recordings, params.yaml (run it in a project), the weights
    Writes       pooled vectors in .heartml/protocol; with --json all numbers
    Exit status  0: done; 1: it could not be done; 2: wrong usage

    \b
    Example:
    heartml protocol regression spirometry.csv --encoders "logspec mn04"
    """
    from heartml.core import config
    from heartml.core.system import files
    from heartml.evaluation.protocols import regression as study

    found = study.run(table, encoders, config.load(), organ)
    if to:
        files.write_json(to, found)
    study.show(found)


@click.command("leave-out")
@click.argument("task")
@click.option("--by", type=click.Choice(["dataset", "source"]), default="dataset", show_default=True,
              help="What to leave out: data sets of the task, or sources within them (a sensor, a campaign).")
@click.option("--json", "to", type=click.Path(path_type=Path, dir_okay=False), help="Write every number to this file.")
def leave_out(task: str, by: str, to: Path | None) -> None:
    """Score TASK on each collection by a model trained on the others.

    Search, ensemble and decision rule use nothing of the collection that is left out. A group with recordings in it and
    elsewhere is left out as a whole. For comparison it prints the baselines, and the task's own model on the same
    units, predicted out-of-fold. It takes one search for each collection. After a kill, the same command goes on.

    \b
    Reads        data/, params.yaml, artifacts/TASK (run `heartml retrain` first)
    Writes       finished runs in .heartml/leave-out; with --json all numbers
    Exit status  0: done; 1: it could not be done; 2: wrong usage

    \b
    Examples:
    heartml leave-out circor+simulated-murmur --json left-out.json
    heartml leave-out physionet2016-normal --by source
    """
    from heartml.cli import tables
    from heartml.core.system.files import write_json
    from heartml.evaluation import leave_out as evaluation

    found = evaluation.run(task, "source" if by == "source" else "dataset")
    if to:
        write_json(to, found)
    tables.leave_out(found)


@click.command()
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
@click.option("--encoders", "encoders", multiple=True, required=True, callback=_names, metavar="NAMES",
              help="Encoders of params.yaml, \"heart mn04\"; may be given several times. `logspec` is added.")
@click.option("--pooling", "poolings", multiple=True, callback=_names, metavar="NAMES",
              help="Poolings for every encoder; without it those of `search.poolings`.")
@click.option("--leave-out-heard", is_flag=True,
              help="Leave the groups out that an encoder was trained on, for all encoders alike, instead of refusing.")
@click.option("--mlflow/--no-mlflow", "recorded", default=True, show_default=True,
              help="Record one run for each encoder in MLflow.")
@click.option("--json", "to", type=click.Path(path_type=Path, dir_okay=False), help="Write every number to this file.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with plots to this file.")
def probe(tasks: tuple[str, ...], encoders: tuple[str, ...], poolings: tuple[str, ...], leave_out_heard: bool,
          recorded: bool, to: Path | None, html: Path | None) -> None:
    """Compare encoders: how much of a TASK a linear probe reads from their frames.

    Each encoder, layer and pooling is probed on the task's own folds, out of fold, and compared with `logspec`, with
    random weights of the same shape, and with the encoder that is named first. Several tasks rank the encoders by
    their mean rank. No encoder is scored on groups that it was trained on. A probe that was stopped goes on; what is
    done is not computed again. With PREFECT_API_URL this runs as the flow `probe` on that server.

    \b
    Reads        data/, artifacts/TASK/folds.parquet (`heartml split`, `heartml retrain`), params.yaml, the weights
    Writes       .heartml/probe; MLflow; the files that --json and --html name
    Exit status  0: done; 1: it could not be done, one line says why; 2: wrong usage

    \b
    Examples:
    heartml probe pascal-sounds --encoders "random_conv mn04 heart" --html probe.html
    heartml probe circor-murmur pascal-sounds --encoders heart --leave-out-heard --json probe.json
    """
    from flows.support import private_server
    from heartml.cli import tables
    from heartml.core.system.files import write_json

    found = _probed(tasks, encoders, poolings, leave_out_heard=leave_out_heard, on_server=private_server.configured())
    if recorded:
        from heartml.evaluation.probe import record

        record.record(found)
    if to:
        write_json(to, found)
    if html:
        from heartml.reporting import probe_page

        probe_page.write(found, html)
    tables.probe(found)


def _probed(tasks: Sequence[str], encoders: Sequence[str], poolings: Sequence[str], *, leave_out_heard: bool,
            on_server: bool) -> Mapping[str, Any]:
    if on_server:
        from flows.support import run_local

        return run_local.probe(list(tasks), list(encoders), list(poolings), leave_out_heard=leave_out_heard)
    from heartml.core import config
    from heartml.evaluation import probe as probing

    plan = probing.plan(tasks, encoders, config.load(), poolings=poolings, leave_out_heard=leave_out_heard)
    return probing.run(plan, (probing.probe_encoder(plan, *job) for job in plan.jobs))


COMMANDS = (protocol, leave_out, probe)
