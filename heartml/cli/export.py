"""Commands that bring a model out of the project: export."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("model", required=False, metavar="[NAME|NAME/VERSION|FOLDER]")
@click.option("--to", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="The folder to write; an export that is there is replaced when the new one is complete.")
@click.option("--task", help="The task whose champion is exported, where params.yaml names several tasks.")
@click.option("--int8", is_flag=True, help="Also write model.int8.onnx, with network weights of eight bits.")
@click.option("--page", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Also write a page to this folder that runs the model in a browser.")
@click.option("--runtime", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
              help="A folder with onnxruntime-web's files, for --page; else npm fetches them once.")
@click.option("--compare", "recordings", default=40, show_default=True, type=click.IntRange(1),
              help="On how many recordings the files are compared with the model.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export(model: str | None, to: Path | None, task: str | None, int8: bool, page: Path | None, runtime: Path | None,
           recordings: int, as_json: bool) -> None:
    """Write a model as ONNX files, which run without this project: on a phone, in a browser, in any language.

    model.onnx takes the samples of one recording and their rate; it answers with probabilities, decision, calibrated
    confidence, reasons to refer, signal quality and, where the model tells them, heart states and heart rate.
    patient.onnx takes what model.onnx gave as `features` for several recordings of one patient. export.json says what
    each output means and where the model comes from; export.signature.json signs it. docs/export.md has an example.

    The files are compared with the model on held-out recordings, or on simulated ones where data/ is not here. They are
    refused where a probability differs by more than 0.0001 or a decision differs. Not a medical device.

    --page writes static files for any web server. The page takes sound files or the microphone, shows waveform,
    spectrogram, heart states and the answer, in English or German. It loads nothing from elsewhere, sends nothing
    anywhere, and works without a network after the first visit.

    \b
    Reads        the model (else the task's champion), data/ for the comparison, params.yaml
    Writes       DIR
    Exit status  0: written; 1: refused or not possible, one line says why; 2: wrong usage

    \b
    Examples:
    heartml export simulated-murmur --to exported
    heartml export circor-murmur/3 --to phone --int8
    heartml export simulated-murmur --page site
    heartml predict recording.wav --model exported
    """
    if to is None and page is None:
        raise click.UsageError("name a folder with --to or --page, or both")
    from heartml import export as exporting

    found = exporting.run(model, task, to, int8=int8, recordings=recordings, page=page, runtime=runtime)
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
        return
    click.echo(f"{found.folder or page}: {found.description}")
    for name, size in found.bytes.items():
        click.echo(f"  {name:<24}{size / 1e6:8.2f} MB")
    click.echo(f"model.onnx and the model: {found.comparison.words}")
    if found.small:
        click.echo(f"model.int8.onnx and the model: {found.small.words}")
    if found.bytes["model.onnx"] > exporting.AIM_BYTES:
        click.echo(f"model.onnx is larger than {exporting.AIM_BYTES / 1e6:.0f} MB; --int8 makes a smaller one")
    for words in found.cautions:
        click.echo(f"Caution: {words}")
    if page:
        click.echo(f"{page}: the page; try it with `python -m http.server --directory {page} 8000`, then open "
                   "http://localhost:8000")
    click.echo("Not a medical device: for research, not for diagnosis.")


COMMANDS = (export,)
