"""Commands about finished models: retrain, models, promote, rollback, compare, card, predict."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from heartml.release.overrides import Decided


@click.command()
@click.option("--wait/--no-wait", default=True, show_default=True,
              help="Take a turn behind another retraining, ingest or DVC command here; or say why not, status 1.")
@click.option("--force", is_flag=True, help="Run every stage again, fresh or not.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def retrain(wait: bool, force: bool, as_json: bool) -> None:
    """Run every stale stage, register the model, and promote it where the gate agrees.

    Reads the stages from dvc.yaml, runs the stale ones as Prefect tasks (on PREFECT_API_URL, or a private server for
    the time), logs to MLflow (MLFLOW_TRACKING_URI, or .heartml/mlflow.db), compares with the champion on the same
    held-out groups, and writes reports/TASK.html. Nothing new: nothing is registered. Killed: just run it again.

    Exit status 0: promoted, refused by the gate, or nothing new; 1: something failed.
    """
    from flows.support import run_local
    from heartml.release import outcome as results
    from heartml.release import publish

    outcomes = run_local.retrain(wait=wait, force=force)
    if as_json:
        click.echo(json.dumps(results.as_json(outcomes), indent=2))
    else:
        results.show(outcomes)
    if any(outcome.state == publish.FAILED for outcome in outcomes):
        sys.exit(1)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def models(as_json: bool) -> None:
    """List registered models: versions, which is champion, what the gate said of each, who decided what and why."""
    from heartml.registry import champions, tracking, versions
    from heartml.release import outcome as results

    client = tracking.connect()
    names = versions.names(client)
    found = [version for name in names for version in versions.versions(client, name)]
    history = {name: champions.read(client, name) for name in names}
    if as_json:
        click.echo(json.dumps([{**version.as_dict(), "decisions": [
            entry.as_dict() for entry in history[version.name] if entry.decision.version == version.number
        ]} for version in found], indent=2))
    else:
        results.show_versions(found)
        results.show_history(history)


_reason = click.option("--reason", required=True, help="Why; people will read it in a year.")
_force = click.option("--force", is_flag=True, help="Although consent was withdrawn, or validation or lineage failed; "
                                                    "what was overruled is recorded.")


@click.command()
@click.argument("model", metavar="MODEL/VERSION")
@_reason
@_force
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
def promote(model: str, reason: str, force: bool, as_json: bool) -> None:
    """Make a version the champion by a person's decision, whatever the gate said of it.

    Recorded in the registry for good: who (git's and the system's user), when, why, and what the gate had said;
    `heartml models` shows it. Refused without a reason, where the version's files are gone or not what was signed, and
    (without --force) where consent for its data was withdrawn or the gate found validation or lineage wanting.

    \b
    heartml promote circor-murmur/3 --reason "heard 40 of its errors: the labels were wrong, not the model"
    """
    from heartml.release import overrides

    if "/" not in model and "@" not in model:
        raise click.UsageError(f"which version? Write {model}/VERSION; `heartml models` lists them")
    _say(overrides.promote(model, reason, force=force), as_json)


@click.command()
@click.argument("model")
@click.option("--to", metavar="VERSION", help="A version that served before; else the one before the champion.")
@_reason
@_force
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
def rollback(model: str, to: str | None, reason: str, force: bool, as_json: bool) -> None:
    """Back to the champion before this one. Once more: forth again; further back with --to.

    Recorded as `heartml promote` records it. The next `heartml retrain` does not undo it: what was rolled back is
    registered already, so it is nothing new. A new model has to win against the champion of the day, as always.

    \b
    heartml rollback circor-murmur --reason "false alarms at the new clinic"
    heartml rollback circor-murmur --to 1 --reason "version 2 has them too"
    """
    from heartml.release import overrides

    if "/" in model or "@" in model:
        raise click.UsageError("name the model alone, and the version with --to")
    _say(overrides.roll_back(model, to, reason, force=force), as_json)


@click.command()
@click.argument("model")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file.")
def card(model: str, out: Path | None) -> None:
    """Print the model card: intended use, data, scores with intervals, subgroups, limits, ethics, lineage (Markdown).

    MODEL is NAME (its champion), NAME/VERSION or NAME@ALIAS. Every number comes from what the version's run keeps; how
    it stands (champion, replaced, withdrawn) is the registry's word of today. The run keeps the card of its first day
    as model_card.md, and the report has it as a section.

    \b
    heartml card circor-murmur
    heartml card circor-murmur/3 --out model_card.md
    """
    from heartml.core.system.files import replacing
    from heartml.registry import tracking, versions
    from heartml.reporting import model_card as cards

    client = tracking.connect()
    text = cards.text(client, versions.get(client, model))
    if out is None:
        click.echo(text, nl=False)
        return
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")


@click.command()
@click.argument("first")
@click.argument("second")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, each unit's answers too.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write it as a page to this file.")
def compare(first: str, second: str, as_json: bool, html: Path | None) -> None:
    """Hold two registered versions against each other: scores, calibration, subgroups; parameters, data, code.

    Each is NAME (its champion), NAME/VERSION or NAME@ALIAS. They are judged on the held-out units that both answered
    and whose group neither was trained on, with paired differences (second minus first) and intervals over groups.

    \b
    heartml compare circor-murmur/1 circor-murmur
    heartml compare circor-murmur circor-murmur@challenger --html compared.html
    """
    from heartml.core import config
    from heartml.core.system.files import canonical_json, replacing
    from heartml.registry import tracking, versions
    from heartml.release import comparison, comparison_page

    client = tracking.connect()
    one, other = (comparison.local_known(comparison.load(client, versions.get(client, w))) for w in (first, second))
    found = comparison.compare(one, other, config.load())
    if html:
        with replacing(html) as temporary:
            temporary.write_text(comparison_page.render(found), encoding="utf-8")
        click.echo(f"{html}: {html.stat().st_size / 1e3:.0f} kB", err=True)
    if as_json:
        click.echo(canonical_json(found), nl=False)
    elif not html:
        comparison_page.show(found)


def _say(decided: "Decided", as_json: bool) -> None:
    if as_json:
        entry = decided.entry.as_dict() if decided.entry else None
        click.echo(json.dumps({**decided.version.as_dict(), "decision": entry}, indent=2))
    else:
        click.echo(decided.in_words())


@click.command()
@click.argument("named", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", "wanted", help="A folder, NAME, NAME@ALIAS or NAME/VERSION; else the task's champion, or what "
                                        "the last `dvc repro` made where there is no champion.")
@click.option("--task", help="Whose champion, where params.yaml names several tasks.")
@click.option("--csv", "to", type=click.Path(path_type=Path, dir_okay=False), help="Write the answers to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def predict(named: tuple[Path, ...], wanted: str | None, task: str | None, to: Path | None, as_json: bool) -> None:
    """Score recordings: probabilities, decision, calibrated confidence, and what is wrong with the signal.

    INPUT is a sound file, a folder of them, or a CSV with a column `path` and, where known, `patient_id` and
    `location`. A task about patients takes files named like 2530_AV.wav as one patient's, any other file as a patient.

    A file that cannot be scored says why, the others are scored, and the exit status is 1. Not a medical device.

    \b
    heartml predict recording.wav
    heartml predict visits.csv --model circor-murmur/3 --csv answers.csv
    """
    from heartml.inference import output
    from heartml.inference import predict as scoring

    result = scoring.run(named, wanted, task)
    if to:
        output.write_csv(result, to)
    if as_json:
        click.echo(output.as_json(result))
    else:
        output.show(result)
    for heard in result.faults:
        click.echo(f"heartml: {output.complaint(heard)}", err=True)
    if result.faults:
        sys.exit(1)


COMMANDS = (retrain, models, promote, rollback, compare, card, predict)
