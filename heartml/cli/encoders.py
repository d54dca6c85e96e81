"""Commands for encoders: embed sound files, and add and list the weights of pre-trained encoders."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from heartml.inference.weights import ListedWeights


def _values(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """`KEY=VALUE` of a section of params.yaml, the values as YAML has them."""
    import yaml

    from heartml.core.system import untrusted

    found: dict[str, Any] = {}
    for words in given:
        key, equals, value = words.partition("=")
        try:
            found[key] = untrusted.parse_yaml(value, yaml.SafeLoader)
        except untrusted.DocumentError as error:
            raise click.BadParameter(f"{words}: {error}") from None
        if not (key and equals):
            raise click.BadParameter(f"{words} is no KEY=VALUE")
    return found


_SET = click.option("--set", "more", multiple=True, metavar="KEY=VALUE", callback=_values,
                    help="A key of the encoder's section, for what the file does not say: window_s=1.0")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="FILE...")
@click.option("--encoder", required=True, metavar="NAME|KIND",
              help="An encoder of params.yaml; or a kind (efficientat, m2d, byol_a, ...) with --weights.")
@click.option("--weights", type=click.Path(exists=True, path_type=Path), help="The publisher's file, for a KIND.")
@click.option("--layers", multiple=True, metavar="LAYER", help="`last` or a number; may be given several times.")
@_SET
@click.option("--prepared/--as-it-is", default=None,
              help="Prepare the sound as the pipeline does (high-pass, one level), or resample it alone. Without this "
                   "option NAME is prepared, and KIND gets it as the publisher's code does.")
@click.option("--to", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.npz",
              help="The file to write; an existing one is replaced when the new one is complete.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def embed(files: tuple[Path, ...], encoder: str, weights: Path | None, layers: tuple[str, ...], more: dict[str, Any],
          prepared: bool | None, to: Path, as_json: bool) -> None:
    """Write the frames of sound files under an encoder, for your own use.

    FILE is a sound file, a folder of them, or a CSV with a column `path`. OUT.npz has an array float32 [frames, dim]
    under each file's stem, and `frame_rate_hz`. A file that cannot be read is named on stderr, and the others are done.

    \b
    Reads        the files, the weights, params.yaml
    Writes       OUT.npz; the weights as safetensors in .heartml/cache
    Exit status  0: written; 1: no file could be read, or the weights cannot be used; 2: wrong usage

    \b
    Examples:
    heartml embed sounds/ --encoder logspec --to frames.npz
    heartml embed a.wav b.wav --encoder efficientat --weights mn04_as_mAP_432.pt --to frames.npz
    heartml embed a.wav --encoder onnx --weights net.onnx --set sample_rate_hz=16000 --set window_s=1.0 --to frames.npz
    """
    from dataclasses import asdict

    from heartml.core import config
    from heartml.core.system.text import printable
    from heartml.inference import embedding

    if to.suffix.lower() != ".npz":
        raise click.BadParameter(f"name it {to.with_suffix('.npz').name}", param_hint="--to")
    spec = embedding.find(encoder, weights, layers, config.load(), more)
    done = embedding.run(files, spec, to, prepared=weights is None if prepared is None else prepared)
    for path, why in done.faults.items():
        click.echo(printable(f"{path}: {why}"), err=True)
    if as_json:
        click.echo(json.dumps(asdict(done), indent=2))
        return
    grid = f"{done.bands} bands of {done.dim // done.bands}" if done.bands else f"{done.dim} values"
    click.echo(f"{to}: {len(done.frames)} files, {sum(done.frames.values()):,} frames of {grid}, "
               f"{done.frame_rate_hz:g} a second" + (f"\nWeights: SHA-256 {done.sha256}" if done.sha256 else ""))


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@click.pass_context
def weights(context: click.Context, as_json: bool) -> None:
    """List the weights of pre-trained encoders that this project tracks, or add or fetch some.

    \b
    Reads        weights/*.dvc
    Writes       nothing; `heartml weights add` and `heartml weights fetch` write weights/
    Exit status  0: printed; 1: a file there cannot be read; 2: wrong usage

    \b
    Examples:
    heartml weights
    heartml weights add ~/mn04_as_mAP_432.pt --kind efficientat --licence MIT
    """
    if context.invoked_subcommand:
        return
    from dataclasses import asdict

    from heartml.cli import tables
    from heartml.inference import weights as tracked

    found = tracked.read()
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        tables.weights(found)


@weights.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--kind", required=True, help="Kind of encoder: efficientat, m2d, byol_a, ...")
@click.option("--licence", required=True, help="Licence of the weights, in words.")
@click.option("--name", help="Their name in weights/; without it that of the file.")
@click.option("--citation", help="What to cite; without it what the publisher of the kind asks for.")
@click.option("--redistribute/--no-redistribute", default=None,
              help="Whether the licence lets the weights be passed on. If not, they stay out of registered models and "
                   "of DVC's remotes. Without this option: as the publisher of the kind says.")
@_SET
@click.option("--json", "as_json", is_flag=True, help="Print what was added as JSON.")
def add(path: Path, kind: str, licence: str, name: str | None, citation: str | None, redistribute: bool | None,
        more: dict[str, Any], as_json: bool) -> None:
    """Add weights: check that they can be used, copy them to weights/NAME/, and let DVC track them.

    No code in the file is run. The line for params.yaml is printed. Commit weights/NAME.dvc.

    \b
    Reads        PATH, params.yaml
    Writes       weights/NAME/, weights/NAME.dvc, weights/.gitignore; DVC's cache
    Exit status  0: added; 1: the file cannot be used, one line says why; 2: wrong usage

    \b
    Examples:
    heartml weights add ~/mn04_as_mAP_432.pt --kind efficientat --licence MIT
    heartml weights add ~/m2d_vit_base-80x608p16x16p16k-x/checkpoint-300.pth --kind m2d --licence "NTT, evaluation" \\
        --no-redistribute
    """
    from heartml.core import config
    from heartml.inference import weights as tracked

    done = tracked.add(path, kind, licence, config.load(), name=name, citation=citation, redistribute=redistribute,
                       more=more)
    _show(done, as_json=as_json)


@weights.command()
@click.argument("name")
@click.option("--accept-licence", is_flag=True, help="You have read the licence of these weights and accept it.")
@click.option("--mirror", metavar="ADDRESS", help="An address with the same file, instead of the publisher's.")
@click.option("--json", "as_json", is_flag=True, help="Print what was added as JSON.")
def fetch(name: str, accept_licence: bool, mirror: str | None, as_json: bool) -> None:
    """Download weights whose publisher gives an address, and add them.

    NAME is mn04_as, mn05_as, mn10_as, mn20_as, mn30_as, mn40_as (EfficientAT) or byol_a_d512. An interrupted download
    goes on where its hash is known (mn04_as).

    \b
    Reads        the publisher's server, params.yaml
    Writes       .heartml/downloads/weights/NAME/, and what `heartml weights add` writes
    Exit status  0: added; 1: it could not be fetched or used, one line says why; 2: wrong usage

    \b
    Example:
    heartml weights fetch mn04_as
    """
    from heartml.core import config
    from heartml.inference import known_weights
    from heartml.inference import weights as tracked

    params = config.load()
    path = known_weights.fetch(name, mirror, accepted=accept_licence)
    known = known_weights.KNOWN[name]
    _show(tracked.add(path, known.kind, known.licence, params, name=name), as_json=as_json)


def _show(done: "ListedWeights", *, as_json: bool) -> None:
    """Print what was added, and the line for params.yaml."""
    from dataclasses import asdict

    if as_json:
        click.echo(json.dumps(asdict(done), indent=2))
        return
    click.echo(f"{done.file} ({done.megabytes:.1f} MB), licence {done.licence}"
               f"{'' if done.redistribute else ', not to be passed on: no model holds them, no remote gets them'}\n"
               f"In params.yaml, below encoder_parameters (and its name in encoders):\n{done.declaration}\n"
               f"Commit weights/{done.name}.dvc and weights/.gitignore")


@click.command()
@click.option("--method", type=click.Choice(["supervised", "masked", "contrastive"]), default="supervised",
              show_default=True, help="How it learns: from labels, or without any.")
@click.option("--start-from", metavar="WEIGHTS",
              help="A checkpoint in M2D's format to go on from; with --method supervised labels then teach that "
                   "transformer. `random`: from none.")
@click.option("--general", "general_sound", type=click.Path(exists=True, file_okay=False, path_type=Path),
              metavar="FOLDER", help="A folder of other sounds, mixed in by `pretrain.vit.general_share`; not for the "
                                     "heart encoder.")
@click.option("--register", "tasks", multiple=True, metavar="TASK",
              help="Then probe the encoder on this task, ask its gate and register it; may be given several times.")
def pretrain(method: Literal["supervised", "masked", "contrastive"], start_from: str | None,
             general_sound: Path | None, tasks: tuple[str, ...]) -> None:
    """Train an encoder on the recordings in data/.

    It hears all of them but the groups that a task of params.yaml is scored on, mixed with simulated hearts. The
    numbers are in section `pretrain` of params.yaml. A killed run goes on from its last checkpoint, to the same bytes.

    Without options the heart encoder learns heart states and labels. `dvc repro` and `heartml retrain` run that too
    where `pretrain.enabled` is [heart]. `--method masked` and `contrastive` need no labels and train a small
    transformer, saved in M2D's format.

    Its gate needs tasks that it did not hear: there a probe of it has to be better than random weights of the same
    shape, never worse than `logspec`, and once better than that. What is registered is not used by itself: `heartml
    weights add` makes it an encoder of this project.

    \b
    Reads        data/, artifacts/validation (run `heartml validate` first), params.yaml, FOLDER
    Writes       artifacts/pretrain/heart (masked, contrastive, supervised): weights, curves.csv, pretraining.json;
                 with --register MLflow: a run with the curves, and a version of heartml-encoder-heart (masked, ...)
    Exit status  0: written; 1: it could not be done; 2: wrong usage

    \b
    Examples:
    heartml pretrain
    heartml pretrain --register pascal-sounds
    heartml pretrain --method masked --general ~/sounds
    heartml weights add artifacts/pretrain/heart/heart.safetensors --kind heart --licence "ODC-By 1.0"
    """
    from heartml.stages import pretrain as stage

    encoder: Literal["heart", "supervised", "masked", "contrastive"]
    encoder = "heart" if method == "supervised" and start_from is None else method
    if encoder == "heart" and general_sound is not None:
        raise click.UsageError("--general: the heart encoder learns from labels, which general sound has none of; add "
                               "--method masked, or --start-from WEIGHTS")
    stage.run(encoder, start_from, general_sound)
    if tasks:
        from heartml.core import config
        from heartml.release import encoder_release

        version, criteria = encoder_release.release(tasks, config.load(), encoder)
        for one in criteria:
            click.echo(f"{one.name}: {'passed' if one.passed else 'failed'}, {one.words}")
        click.echo(f"{version.name}/{version.number}: {version.verdict}")


COMMANDS = (embed, weights, pretrain)
