"""Commands that check and sign registered versions: audit, verify, sign."""

import json
import sys
from pathlib import Path

import click


@click.command()
@click.argument("model")
@click.option("--full", is_flag=True, help="Print every link, also those that hold.")
@click.option("--reproduce", is_flag=True, help="Also run every stage again in a fresh clone and compare all outputs.")
@click.option("--tolerance", type=click.FloatRange(0, min_open=True),
              help="Largest difference of a number in another environment; else `audit.tolerance` of params.yaml.")
@click.option("--json", "as_json", is_flag=True, help="Print every link as JSON.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the links as a page to this file.")
def audit(model: str, full: bool, reproduce: bool, tolerance: float | None, as_json: bool, html: Path | None) -> None:
    """Check the whole chain behind a registered version.

    MODEL is NAME (its champion), NAME@ALIAS or NAME/VERSION, or the folder of an export, whose version is then audited
    with it. Each link of the chain holds, is broken or is missing. Ten lines say what holds, and every link that does
    not; --full prints each link.

    The links are: signature, commit and difference from it, code of the stages and beside the model, parameters,
    packages, dvc.lock, every file of the data and of the stages' outputs (hashed again), the registered files,
    validation, folds, metrics and decisions (computed again), the gate's verdict, the alias, and withdrawn consent.

    --reproduce takes as long as the training. It clones the commit into a temporary folder, fetches the data by hash,
    runs `dvc repro --force`, and compares every output with the stored one. The bytes must be the same. With another
    Python, other packages or another machine, numbers must agree within the tolerance.

    \b
    Reads        the registry, git, DVC's cache and remotes
    Writes       nothing, unless --html names a file
    Exit status  0: every link holds; 1: a link does not hold, or there is no such version

    \b
    Examples:
    heartml audit simulated-murmur
    heartml audit simulated-murmur --full
    heartml audit circor-murmur/3 --reproduce --html audit.html
    heartml audit exported/
    """
    from rich.console import Console

    from heartml import audit as auditor
    from heartml.audit import show

    found, reproduced = auditor.run_all(model, reproduce=reproduce, tolerance=tolerance)
    if html:
        from heartml.core.system.files import replacing

        with replacing(html) as temporary:
            temporary.write_text(show.page(found), encoding="utf-8")
    if as_json:
        from dataclasses import asdict

        outputs = {"reproduced": [asdict(one) for one in reproduced.outputs]} if reproduced else {}
        click.echo(json.dumps({**found.as_json(), **outputs}, indent=2))
    else:
        console = Console()
        (show.table if full else show.summary)(found, console)
        if reproduced:
            show.reproduction(reproduced, console)
    if not found.holds:
        sys.exit(1)


@click.command()
@click.argument("model")
@click.option("--to", type=click.Path(path_type=Path), help="Write the verified copy into this new folder.")
def verify(model: str, to: Path | None) -> None:
    """Check a registered version against its signature.

    No code of the model is run. `mlflow models serve` runs Python code that is stored beside a model before anything
    can be checked. So verify first, and serve the verified copy. The server checks it once more, with the keys that
    HEARTML_TRUSTED_KEYS names. What to know about the model (refused by the gate, promoted against it, retired, consent
    withdrawn) is printed and written beside the copy; the server puts it into `warnings` of every prediction. To bring
    it up to date, make a new copy.

    \b
    Reads        the registry, the trusted keys, params.yaml where there is one
    Writes       nothing, unless --to names a folder: the folder and FOLDER.cautions.json
    Exit status  0: the files are as they were signed; 1: they are not, or there is no such version

    \b
    Examples:
    heartml verify circor-murmur --to served
    HEARTML_TRUSTED_KEYS=.heartml/keys mlflow models serve -m served --env-manager local
    """

    from heartml.core import config, paths
    from heartml.core.system.errors import HeartMLError
    from heartml.core.system.files import replacing_folder, temporary_folder
    from heartml.registry import champions, model_files, tracking, version_cautions, versions

    if to and to.exists():
        raise HeartMLError(f"{to}: exists already; name a new folder")
    client = tracking.connect_to_existing()
    version = versions.get(client, model)
    with temporary_folder() as place:
        folder = model_files.download_unverified(client, version, place)
        model_files.verify(folder, version.name, version.number, version.run_id)
        cautions = version_cautions.of(version, champions.read(client, version.name))
        if to:
            import shutil

            if paths.PARAMS.is_file():
                version_cautions.check(cautions, config.load().predict)
            version_cautions.write_beside(to, cautions)
            with replacing_folder(to) as temporary:
                shutil.copytree(folder, temporary, dirs_exist_ok=True)
    copied = f"; copied to {to}" if to else ""
    click.echo(f"{version.name} version {version.number}: the files are as they were signed{copied}")
    for words in cautions:
        click.echo(f"Caution: {words}")


@click.command()
@click.argument("model")
@click.option("--yes", is_flag=True, help="Sign without asking.")
def sign(model: str, yes: bool) -> None:
    """Sign a registered version as it is stored now.

    `heartml retrain` signs what it registers. This command is for versions that have no signature, or whose key was
    lost. With your signature you vouch for the stored files, so look at `heartml audit MODEL/VERSION` first.

    \b
    Reads        the registry, and this machine's key (HEARTML_SIGNING_KEY, or else .heartml/keys)
    Writes       the signature, to the registry
    Exit status  0: signed; 1: there is no such version or no key; 2: no terminal to ask at, and no --yes

    \b
    Examples:
    heartml audit simulated-murmur/1
    heartml sign simulated-murmur/1
    """
    from heartml.registry import sealing, tracking, versions

    client = tracking.connect_to_existing()
    version = versions.get(client, model)
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at: add --yes")
    if not yes:
        click.confirm(f"Sign {version.name} version {version.number} as it is stored now?", abort=True, err=True)
    click.echo(f"{version.name} version {version.number}: signed with key {sealing.sign_again(client, version)[:16]}")


COMMANDS = (audit, verify, sign)
