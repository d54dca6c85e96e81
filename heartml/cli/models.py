"""Commands that train, release and use models: retrain, models, promote, rollback, retire, compare, card, predict."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from heartml.release.overrides import OverrideResult


@click.command()
@click.option("--wait/--no-wait", default=True, show_default=True,
              help="Wait for another retraining, ingest or DVC command in this folder; or end at once, exit status 1.")
@click.option("--force", is_flag=True, help="Run every stage again, stale or not.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def retrain(wait: bool, force: bool, as_json: bool) -> None:
    """Run every stale stage, register the model, and promote it if the gate agrees.

    The stages of dvc.yaml run as Prefect tasks, on the server PREFECT_API_URL or on a private one that ends with the
    command. The new model is compared with the champion on every unit that neither was trained on: held-out ones, new
    ones, and out of fold. Where nothing is new, nothing is registered. After a kill, the same command goes on.

    \b
    Reads        data/, params.yaml, dvc.yaml, the champion
    Writes       artifacts/, dvc.lock, reports/TASK.html, MLflow (MLFLOW_TRACKING_URI, or .heartml/mlflow.db)
    Exit status  0: promoted, refused by the gate, or nothing new; 1: something failed; 2: wrong usage

    \b
    Examples:
    heartml retrain
    heartml retrain --no-wait --json
    """
    from flows.support import run_local
    from heartml.lineage import capture
    from heartml.release import outcome as results
    from heartml.release import publish

    outcomes = run_local.retrain(wait=wait, force=force)
    if as_json:
        click.echo(json.dumps(results.as_json(outcomes), indent=2))
    else:
        results.show(outcomes, capture.uncommitted())
    if any(outcome.state == publish.FAILED for outcome in outcomes):
        sys.exit(1)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def models(as_json: bool) -> None:
    """List the registered models and their versions.

    Printed are which version is champion, the gate's verdict on each, and every decision with who made it and why.

    \b
    Reads        the registry
    Writes       nothing
    Exit status  0: printed

    \b
    Example:
    heartml models
    """
    from heartml.registry import champions, tracking, versions
    from heartml.release import outcome as results

    client = tracking.connect_to_existing()
    names = versions.model_names(client)
    found = [version for name in names for version in versions.list_versions(client, name)]
    history = {name: champions.read(client, name) for name in names}
    if as_json:
        click.echo(json.dumps([{**version.as_dict(), "decisions": [
            entry.as_dict() for entry in history[version.name] if entry.subject == version.number
        ]} for version in found], indent=2))
    else:
        results.show_versions(found)
        results.show_history(history)


_reason = click.option("--reason", required=True, help="Why, for people who read it in a year.")
_force = click.option("--force", is_flag=True, help="Overrule withdrawn consent, or a failed check of validation or "
                                                    "lineage. What was overruled is recorded.")


@click.command()
@click.argument("model", metavar="MODEL/VERSION")
@_reason
@_force
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
def promote(model: str, reason: str, force: bool, as_json: bool) -> None:
    """Make a version the champion, by a person's decision.

    The gate's verdict does not matter here. The registry records who decided (git's and the system's user), when, why,
    and the gate's verdict; `heartml models` shows it. The promotion is refused where the version's files are missing or
    differ from what was signed. Without --force it is also refused where consent for its data was withdrawn, or where
    the gate found that validation or lineage failed.

    \b
    Reads        the registry
    Writes       the decision and the alias `champion`, to the registry
    Exit status  0: promoted; 1: refused, or there is no such version; 2: wrong usage

    \b
    Example:
    heartml promote circor-murmur/3 --reason "listened to 40 of its errors: the labels were wrong, not the model"
    """
    from heartml.release import overrides

    if "/" not in model and "@" not in model:
        raise click.UsageError(f"which version? Write {model}/VERSION; `heartml models` lists them")
    _print_override(overrides.promote(model, reason, force=force), as_json)


@click.command()
@click.argument("model")
@click.option("--to", metavar="VERSION", help="An earlier champion; else the one before the present champion.")
@_reason
@_force
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
def rollback(model: str, to: str | None, reason: str, force: bool, as_json: bool) -> None:
    """Make the previous champion the champion again.

    A second rollback restores the champion from before the first one; --to goes further back. The decision is recorded
    as with `heartml promote`. The next `heartml retrain` does not undo it, because the version that was rolled back is
    registered already. A new model has to be better than the present champion, as always.

    \b
    Reads        the registry
    Writes       the decision and the alias `champion`, to the registry
    Exit status  0: done; 1: there is no such earlier champion, or it is refused; 2: wrong usage

    \b
    Examples:
    heartml rollback circor-murmur --reason "false alarms at the new clinic"
    heartml rollback circor-murmur --to 1 --reason "version 2 has them too"
    """
    from heartml.release import overrides

    _check_name(model, "the version belongs behind --to")
    _print_override(overrides.roll_back(model, to, reason, force=force), as_json)


@click.command()
@click.argument("model")
@_reason
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
def retire(model: str, reason: str, as_json: bool) -> None:
    """Take the champion out of service.

    Nothing serves then: predict, score and monitor say who retired it, when and why. They use no other model unless
    --model names it. The gate refuses what the next `heartml retrain` makes, until a person promotes a version. The
    retired version stays registered. The decision is recorded as with `heartml promote`. After a kill, the same command
    goes on.

    \b
    Reads        the registry
    Writes       the decision, to the registry, where the alias `champion` is removed
    Exit status  0: retired; 1: nothing serves already, or there is no such model; 2: wrong usage

    \b
    Example:
    heartml retire circor-murmur --reason "misses loud murmurs of newborns; incident 12"
    """
    from heartml.release import overrides

    _check_name(model, "the champion is retired, whichever version that is")
    _print_override(overrides.retire(model, reason), as_json)


def _check_name(model: str, why: str) -> None:
    if "/" in model or "@" in model:
        raise click.UsageError(f"give the name of the model without a version; {why}")


@click.command()
@click.argument("model")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the card to this file.")
def card(model: str, out: Path | None) -> None:
    """Print the model card of a registered version, as Markdown.

    MODEL is NAME (its champion), NAME/VERSION or NAME@ALIAS. The card has intended use, data, scores with intervals,
    subgroups, limits, ethics and lineage. Its numbers come from the files of the version's run. Its status (champion,
    replaced, withdrawn) is the present one. The run keeps the card of the first day as model_card.md, and the report
    has that as a section.

    \b
    Reads        the registry, the run's files
    Writes       nothing, unless --out names a file
    Exit status  0: printed; 1: there is no such version; 2: wrong usage

    \b
    Examples:
    heartml card circor-murmur
    heartml card circor-murmur/3 --out model_card.md
    """
    from heartml.core.system.files import replacing
    from heartml.registry import tracking, versions
    from heartml.reporting import model_card as cards

    client = tracking.connect_to_existing()
    text = cards.text(client, versions.get(client, model))
    if out is None:
        click.echo(text, nl=False)
        return
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")


@click.command()
@click.argument("first")
@click.argument("second")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, with the predictions for each unit.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write it as a page to this file.")
def compare(first: str, second: str, as_json: bool, html: Path | None) -> None:
    """Compare two registered versions.

    FIRST and SECOND are NAME (its champion), NAME/VERSION or NAME@ALIAS. Compared are scores, calibration and
    subgroups, and also parameters, data and code. The scores are those on held-out units for which both have a
    prediction and whose group neither was trained on. Differences are paired (second minus first), with intervals over
    groups.

    \b
    Reads        the registry, the runs' files
    Writes       nothing, unless --html names a file
    Exit status  0: compared; 1: there is no such version, or nothing in common; 2: wrong usage

    \b
    Examples:
    heartml compare circor-murmur/1 circor-murmur
    heartml compare circor-murmur circor-murmur@challenger --html compared.html
    """
    from heartml.core import config
    from heartml.core.system.files import canonical_json, replacing
    from heartml.registry import tracking, versions
    from heartml.release import comparison, comparison_page

    client = tracking.connect_to_existing()
    one, other = (comparison.with_local_units(comparison.load(client, versions.get(client, wanted)))
                  for wanted in (first, second))
    found = comparison.compare(one, other, config.load())
    if html:
        with replacing(html) as temporary:
            temporary.write_text(comparison_page.render(found), encoding="utf-8")
        click.echo(f"{html}: {html.stat().st_size / 1e3:.0f} kB", err=True)
    if as_json:
        click.echo(canonical_json(found), nl=False)
    elif not html:
        comparison_page.show(found)


def _print_override(result: "OverrideResult", as_json: bool) -> None:
    if as_json:
        entry = result.entry.as_dict() if result.entry else None
        click.echo(json.dumps({**result.version.as_dict(), "decision": entry}, indent=2))
    else:
        click.echo(result.in_words())


@click.command()
@click.argument("named", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", "wanted", help="A folder, NAME, NAME@ALIAS or NAME/VERSION; else the task's champion, or what "
                                        "the last `dvc repro` made where there is no champion.")
@click.option("--task", help="A task, or several that are answered together: a group of tasks (bmdhs-diseases) or a "
                             "data set (bmdhs), of which the tasks in params.yaml are meant.")
@click.option("--csv", "to", type=click.Path(path_type=Path, dir_okay=False), help="Write predictions to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def predict(named: tuple[Path, ...], wanted: str | None, task: str | None, to: Path | None, as_json: bool) -> None:
    """Predict for recordings: decision, confidence, probabilities.

    INPUT is a sound file, a folder of sound files, or a CSV or TSV with a column `path` and optionally `patient_id`
    and `location`. In a task about patients, files named like 2530_AV.wav belong to patient 2530, and any other file is
    a patient of its own. Warnings about the signal are printed too. A file that cannot be scored is named with the
    reason, and the others are scored. Where params.yaml names several tasks of one collection, all that have a model
    are answered in one table, each by its champion. Recordings of telephones (M4A, 3GP, AMR, ...) are read where ffmpeg
    is installed.

    Not a medical device.

    \b
    Reads        INPUT, the model, params.yaml
    Writes       nothing, unless --csv names a file
    Exit status  0: every file was scored; 1: a file could not be scored, or there is no model; 2: wrong usage

    \b
    Examples:
    heartml predict recording.wav
    heartml predict visits.csv --model circor-murmur/3 --csv predictions.csv
    heartml predict visits.csv --task bmdhs-diseases --csv predictions.csv
    """
    from heartml.core import config
    from heartml.inference import output, several_output, several_tasks
    from heartml.inference import predict as scoring

    together = () if wanted else several_tasks.asked(task, config.load().tasks)
    if together:
        several = several_tasks.run(named, together)
        first, printed = several.results[0], several_output.as_json(several) if as_json else ""
        if to:
            several_output.write_csv(several, to)
    else:
        first = scoring.run(named, wanted, task)
        printed = output.as_json(first) if as_json else ""
        if to:
            output.write_csv(first, to)
    if as_json:
        click.echo(printed)
        output.print_faults(first)
    elif together:
        several_output.show(several)
    else:
        output.show(first)
    if first.faults:
        sys.exit(1)


COMMANDS = (retrain, models, promote, rollback, retire, compare, card, predict)
