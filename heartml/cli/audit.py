"""Commands about what can be trusted: audit, verify, sign."""

import json
import sys
from pathlib import Path

import click


@click.command()
@click.argument("model")
@click.option("--reproduce", is_flag=True, help="Also run every stage again in a fresh clone, and compare all outputs.")
@click.option("--tolerance", type=click.FloatRange(0, min_open=True),
              help="How far numbers may differ in another environment, else `audit.tolerance` of params.yaml.")
@click.option("--json", "as_json", is_flag=True, help="Print every link as JSON.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the links as a page to this file.")
def audit(model: str, reproduce: bool, tolerance: float | None, as_json: bool, html: Path | None) -> None:
    """Verify the whole chain behind a registered version: each link holds, is broken, or is missing.

    MODEL is NAME (its champion), NAME@ALIAS or NAME/VERSION. Looked at are signature, commit and difference, the code
    of the stages and beside the model, parameters, packages, dvc.lock, every file of the data and of the stages'
    outputs (hashed again), the registered files, validation, folds, metrics and decisions (computed again), the gate's
    verdict, the alias, and withdrawn consent. It reads the registry, git, and DVC's cache and remotes.

    --reproduce takes as long as the training: it clones that commit into a temporary folder, brings its data by hash,
    runs `dvc repro --force`, and holds every output against the stored one: the same bytes, or, where Python, packages
    or machine are others, numbers within the tolerance. This folder is left alone.

    Exit status 0: every link holds; 1: one does not, or there is no such version.

    \b
    heartml audit simulated-murmur
    heartml audit circor-murmur/3 --reproduce --html audit.html
    """
    from rich.console import Console

    from heartml import audit as auditor
    from heartml.audit import show

    found, again = auditor.run_all(model, reproduce=reproduce, tolerance=tolerance)
    if html:
        from heartml.core.system.files import replacing

        with replacing(html) as temporary:
            temporary.write_text(show.page(found), encoding="utf-8")
    if as_json:
        from dataclasses import asdict

        outputs = [asdict(one) for one in again.outputs] if again else None
        click.echo(json.dumps({**found.as_json(), **({"reproduced": outputs} if again else {})}, indent=2))
    else:
        console = Console()
        show.table(found, console)
        if again:
            show.reproduction(again, console)
    if not found.holds:
        sys.exit(1)


@click.command()
@click.argument("model")
@click.option("--to", type=click.Path(path_type=Path), help="Put the verified copy into this new folder.")
def verify(model: str, to: Path | None) -> None:
    """Hold a registered version against its signature, without running any of its code.

    `mlflow models serve` runs the Python that is stored beside a model before anything can be checked. So verify first,
    and serve the verified copy; the server checks once more, against keys that you name outside of the model.

    \b
    heartml verify circor-murmur --to served
    HEARTML_TRUSTED_KEYS=.heartml/keys mlflow models serve -m served --env-manager local
    """

    from heartml.core.system.errors import HeartMLError
    from heartml.core.system.files import replacing_folder, scratch
    from heartml.registry import model_files, tracking, versions

    if to and to.exists():
        raise HeartMLError(f"{to}: is there already; name a new folder")
    client = tracking.connect()
    version = versions.get(client, model)
    with scratch() as place:
        folder = model_files.copied(client, version, place)
        model_files.verify(folder, version.name, version.number, version.run_id)
        if to:
            import shutil

            with replacing_folder(to) as temporary:
                shutil.copytree(folder, temporary, dirs_exist_ok=True)
    click.echo(f"{version.name} version {version.number}: as it was signed{f', in {to}' if to else ''}")


@click.command()
@click.argument("model")
@click.option("--yes", is_flag=True, help="Do not ask.")
def sign(model: str, yes: bool) -> None:
    """Sign a version as it is stored now, with this machine's key (HEARTML_SIGNING_KEY, or .heartml/keys).

    `heartml retrain` signs what it registers. This is for versions from before there were signatures, and for a key
    that was lost: look at `heartml audit MODEL/VERSION` first, for you vouch for what is there.

    \b
    heartml audit simulated-murmur/1
    heartml sign simulated-murmur/1
    """
    from heartml.registry import sealing, tracking, versions

    client = tracking.connect()
    version = versions.get(client, model)
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("nobody to ask at a terminal: add --yes")
    if not yes:
        click.confirm(f"Sign {version.name} version {version.number} as it is stored now?", abort=True, err=True)
    click.echo(f"{version.name} version {version.number}: signed with key {sealing.sign_again(client, version)[:16]}")


COMMANDS = (audit, verify, sign)
