"""Commands for the auditor: lineage, trace, withdraw."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from heartml.lineage.chain import Chain


@click.command()
@click.argument("model")
@click.option("--recordings", is_flag=True, help="List every recording with its source file, not the first few.")
@click.option("--all", "whole", is_flag=True, help="Leave nothing out: every parameter, code file and recording.")
@click.option("--diff", is_flag=True, help="Print what differed from the commit, for `git apply`.")
@click.option("--json", "as_json", is_flag=True, help="Print the chain as W3C PROV (PROV-JSON).")
@click.option("--openlineage", is_flag=True, help="Print it as OpenLineage events, one a line.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write it as a page to this file.")
def lineage(model: str, recordings: bool, whole: bool, diff: bool, as_json: bool, openlineage: bool,
            html: Path | None) -> None:
    """Show what a registered version was made of: run, code, dvc.lock, stages, folds, recordings, environment.

    MODEL is NAME (its champion), NAME@ALIAS or NAME/VERSION. Everything is read from the registry, the run's files and
    DVC's cache or remotes by hash: it is the chain of that version, wherever data and code have moved since. What
    cannot be found is listed with the way out. Whether the links still hold is what `heartml audit` finds out.

    \b
    heartml lineage simulated-murmur
    heartml lineage circor-murmur/3 --html lineage.html
    heartml lineage circor-murmur --json > lineage.prov.json
    """
    if sum((as_json, openlineage, diff)) > 1:
        raise click.UsageError("--json, --openlineage and --diff: one of them")
    from heartml.lineage import chain
    from heartml.registry import tracking

    client = tracking.connect()
    found = chain.read(client, chain.locate(client, model))
    if html:
        _write_page(html, found)
    if as_json:
        from heartml.lineage import export_prov

        click.echo(export_prov.as_json(found))
    elif openlineage:
        from heartml.lineage import export_openlineage

        click.echo("\n".join(json.dumps(event, sort_keys=True) for event in export_openlineage.as_dicts(found)))
    elif diff:
        click.echo(found.code.diff or "", nl=False)
    elif not html:
        _print_tree(found, whole=whole, recordings=recordings)


def _write_page(path: Path, found: "Chain") -> None:
    from heartml.core.system.files import replacing
    from heartml.lineage import page

    with replacing(path) as temporary:
        temporary.write_text(page.render(found), encoding="utf-8")
    click.echo(f"{path}: {path.stat().st_size / 1e6:.2f} MB", err=True)


def _print_tree(found: "Chain", *, whole: bool, recordings: bool) -> None:
    from rich.console import Console

    from heartml.lineage import show, tree

    keep = None if whole or recordings else 3
    Console().print(show.tree(tree.outline(found, keep), whole=whole))


@click.command()
@click.argument("name", metavar="RECORDING|PATIENT")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def trace(name: str, as_json: bool) -> None:
    """Show what a recording or a patient went into: data versions, groups, folds, runs, registered versions.

    A recording is named by its id, the first digits of it, or its source file; a patient by id, data set first. Looked
    for in every data version that git's history and the runs name, quarantine included.

    \b
    heartml trace 6d2f6440f949
    heartml trace 39522_AV.wav
    heartml trace circor-9979 --json
    """
    from heartml.lineage import trace as tracing
    from heartml.registry import tracking

    found = tracing.find(tracking.connect(), name)
    click.echo(json.dumps(found.as_dict(), indent=2) if as_json else "\n".join(tracing.lines(found)))


@click.command()
@click.argument("patient")
@click.option("--reason", required=True, help="Kept in data/withdrawn.parquet and in the quarantine.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def withdraw(patient: str, reason: str, yes: bool, as_json: bool) -> None:
    """Take a patient who has withdrawn consent out of the next data version.

    The recordings leave data/ (data.dvc names the next version), a row for each says why, and no later ingest brings
    them back, under whatever file name. Every registered version that was trained on them or held them out is listed
    and marked (tag heartml.withdrawn). Nothing that was is rewritten: former data versions, runs and models stay, and
    what remains where is listed, with what erases it. Done before, or killed: run it again.

    \b
    heartml withdraw circor-9979 --reason "letter of 3 March"
    """
    import sys

    from heartml.lineage import withdrawal
    from heartml.registry import tracking

    if not yes and not sys.stdin.isatty():
        raise click.UsageError("nobody to ask at a terminal: add --yes")
    client = tracking.connect()
    found = withdrawal.preview(client, patient)
    if not yes:
        from heartml.lineage import trace as tracing

        click.echo("\n".join(tracing.lines(found)), err=True)
        click.confirm("Take these recordings out of the next data version?", abort=True, err=True)
    done = withdrawal.run(client, found, reason)
    click.echo(json.dumps(done.as_dict(), indent=2) if as_json else "\n".join(withdrawal.lines(done)))


COMMANDS = (lineage, trace, withdraw)
