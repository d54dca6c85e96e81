"""Commands about where data and models come from: lineage, trace, withdraw."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from heartml.lineage.chain import Chain


@click.command()
@click.argument("model")
@click.option("--full", is_flag=True, help="Show the chain as a tree: every stage, with what it reads and writes.")
@click.option("--recordings", is_flag=True, help="The tree with every recording and its source file.")
@click.option("--all", "whole", is_flag=True, help="The tree with every parameter, code file and recording.")
@click.option("--diff", is_flag=True, help="Print how the code differed from the commit, for `git apply`.")
@click.option("--json", "as_json", is_flag=True, help="Print the chain as W3C PROV (PROV-JSON).")
@click.option("--openlineage", is_flag=True, help="Print the chain as OpenLineage events, one on each line.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the chain as a page to this file.")
def lineage(model: str, full: bool, recordings: bool, whole: bool, diff: bool, as_json: bool, openlineage: bool,
            html: Path | None) -> None:
    """Show what a registered version was made of.

    MODEL is NAME (its champion), NAME@ALIAS or NAME/VERSION. Ten lines say what it is, by whom and when it was made,
    from which data, code and parameters, and what is missing. --full shows the chain with all its stages. Files are
    found by hash, so it is the chain of that version, however data and code have changed since. What cannot be found is
    listed, with what to do. `heartml audit` checks whether the links still hold.

    \b
    Reads        the registry, the run's files, git, DVC's cache and remotes
    Writes       nothing, unless --html names a file
    Exit status  0: printed; 1: there is no such version; 2: wrong usage

    \b
    Examples:
    heartml lineage simulated-murmur
    heartml lineage simulated-murmur --full
    heartml lineage circor-murmur/3 --html lineage.html
    heartml lineage circor-murmur --json > lineage.prov.json
    """
    if sum((as_json, openlineage, diff)) > 1:
        raise click.UsageError("choose one of --json, --openlineage and --diff")
    from heartml.lineage import chain
    from heartml.registry import tracking

    client = tracking.connect_to_existing()
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
        click.echo(found.code.difference or b"", nl=False)
    elif not html:
        _print(found, full=full, whole=whole, recordings=recordings)


def _write_page(path: Path, found: "Chain") -> None:
    from heartml.core.system.files import replacing
    from heartml.lineage import page

    with replacing(path) as temporary:
        temporary.write_text(page.render(found), encoding="utf-8")
    click.echo(f"{path}: {path.stat().st_size / 1e6:.2f} MB", err=True)


def _print(found: "Chain", *, full: bool, whole: bool, recordings: bool) -> None:
    from rich.console import Console

    from heartml.lineage import show, tree

    if full or whole or recordings:
        most = None if whole or recordings else 3
        Console().print(show.tree(tree.outline(found, most), whole=whole))
        return
    named = f"{found.version.name}/{found.version.number}"
    Console().print(show.summary(tree.outline(found, 0)))
    click.echo(f"\nThe whole chain: heartml lineage {named} --full. Does it hold? heartml audit {named}")


@click.command()
@click.argument("name", metavar="RECORDING|PATIENT")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def trace(name: str, as_json: bool) -> None:
    """Show where a recording or a patient was used.

    A recording is named by its id, the first digits of the id, or its source file. A patient is named by data set and
    id. The data versions in git's history and in the runs are searched, quarantine included. Printed are the data
    versions, groups, folds, runs and registered versions.

    \b
    Reads        data/, git, the registry, DVC's cache and remotes
    Writes       nothing
    Exit status  0: found; 1: there is no such recording or patient; 2: wrong usage

    \b
    Examples:
    heartml trace 6d2f6440f949
    heartml trace 39522_AV.wav
    heartml trace circor-9979 --json
    """
    from heartml.lineage import trace as tracing
    from heartml.registry import tracking

    found = tracing.find(tracking.connect_to_existing(), name)
    click.echo(json.dumps(found.as_dict(), indent=2) if as_json else _printable(tracing.lines(found)))


@click.command()
@click.argument("patient")
@click.option("--reason", help="The reason; stored in data/withdrawn.parquet and in the quarantine.")
@click.option("--dry-run", is_flag=True, help="Only show what would be taken out and marked; nothing is written.")
@click.option("--yes", is_flag=True, help="Withdraw without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def withdraw(patient: str, reason: str | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove a patient who has withdrawn consent from the data.

    The recordings are not in the next version of the data, and no later ingest brings them back, whatever the files are
    called. Every registered version that was trained or tested on them is listed and marked (tag heartml.withdrawn).
    Earlier data versions, runs and models are not changed. What remains of the recordings in them is listed, with what
    erases it. The command may be run again, also after a kill.

    \b
    Reads        data/, git, the registry
    Writes       data/ (one row with the reason for each recording), data.dvc, tags of registered versions
    Exit status  0: done; 1: there is no such patient; 2: no --reason, or no terminal to ask at and no --yes

    \b
    Examples:
    heartml withdraw circor-9979 --dry-run
    heartml withdraw circor-9979 --reason "letter of 3 March"
    """
    import sys

    from heartml.lineage import withdrawal
    from heartml.registry import tracking

    if not dry_run and not (reason or "").strip():
        raise click.UsageError('give the reason: --reason "letter of 3 March" is what people will read in a year')
    if not dry_run and not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at: add --yes")
    client = tracking.connect_to_existing()
    found = withdrawal.preview(client, patient)
    if dry_run:
        planned = withdrawal.plan(found)
        told = json.dumps(planned.as_dict(), indent=2) if as_json else _printable(withdrawal.planned_lines(planned))
        click.echo(told)
        return
    assert reason
    if not yes:
        from heartml.lineage import trace as tracing

        click.echo(_printable(tracing.lines(found)), err=True)
        click.confirm("Remove these recordings from the next version of the data?", abort=True, err=True)
    done = withdrawal.run(client, found, reason)
    click.echo(json.dumps(done.as_dict(), indent=2) if as_json else _printable(withdrawal.lines(done)))


def _printable(lines: Iterable[str]) -> str:
    """Lines with names from data, none of which can control the terminal."""
    from heartml.core.system.text import printable

    return "\n".join(map(printable, lines))


COMMANDS = (lineage, trace, withdraw)
