"""Commands that bring a model out of the project: export, serve."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("model", required=False, metavar="[NAME|NAME/VERSION|FOLDER]")
@click.option("--to", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="The folder to write; an export that is there is replaced when the new one is complete.")
@click.option("--task", help="The task whose champion is exported, where params.yaml names several tasks.")
@click.option("--int8", is_flag=True, help="Also write model.int8.onnx, with network weights of eight bits.")
@click.option("--distil", is_flag=True, help="Train one small network on the ensemble's out-of-fold predictions and "
                                              "export it in the ensemble's place, with what it loses.")
@click.option("--page", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Also write a page to this folder that runs the model in a browser.")
@click.option("--runtime", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
              help="A folder with onnxruntime-web's files, for --page; else npm fetches them once.")
@click.option("--compare", "recordings", default=40, show_default=True, type=click.IntRange(1),
              help="On how many recordings the files are compared with the model.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export(model: str | None, to: Path | None, task: str | None, int8: bool, page: Path | None, runtime: Path | None,
           recordings: int, as_json: bool, distil: bool) -> None:
    """Write a model as ONNX files, which run without this project: on a phone, in a browser, in any language.

    model.onnx takes the samples of one recording and their rate; it answers with probabilities, decision, calibrated
    confidence, reasons to refer, signal quality and, where the model tells them, heart states and heart rate.
    patient.onnx takes what model.onnx gave as `features` for several recordings of one patient. export.json says what
    each output means and where the model comes from; export.signature.json signs it. docs/export.md has an example.

    The files are compared with the model on held-out recordings, or on simulated ones where data/ is not here. They are
    refused where a decision or a reason differs, or where probabilities differ by more than 0.0001 on more than one
    recording in twenty. Not a medical device.

    --distil is for a model that is too large, or that has a part which cannot be exported. The student is fitted here,
    from data/ and artifacts/, which takes as long as a few trials of the search. `heartml predict` uses it only where
    its folder is named.

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
    heartml export circor-murmur --to student --distil
    heartml export simulated-murmur --page site
    heartml predict recording.wav --model exported
    """
    if to is None and page is None:
        raise click.UsageError("name a folder with --to or --page, or both")
    from heartml import export as exporting

    found = exporting.run(model, task, to, int8=int8, recordings=recordings, page=page, runtime=runtime,
                          distil=distil)
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
        return
    click.echo(f"{found.folder or page}: {found.description}")
    for name, size in found.bytes.items():
        click.echo(f"  {name:<24}{size / 1e6:8.2f} MB")
    click.echo(f"model.onnx and the model: {found.comparison.words}")
    if found.small:
        click.echo(f"model.int8.onnx and the model: {found.small.words}")
    for words in found.lost:
        click.echo(words)
    if found.bytes["model.onnx"] > exporting.AIM_BYTES:
        click.echo(f"model.onnx is larger than {exporting.AIM_BYTES / 1e6:.0f} MB; --int8 makes a smaller one, "
                   "--distil a much smaller student")
    for words in found.cautions:
        click.echo(f"Caution: {words}")
    if page:
        click.echo(f"{page}: the page; try it with `python -m http.server --directory {page} 8000`, then open "
                   "http://localhost:8000")
    click.echo("Not a medical device: for research, not for diagnosis.")


@click.command()
@click.argument("model", required=False, metavar="[NAME|NAME@ALIAS|NAME/VERSION|FOLDER]")
@click.option("--task", help="The task whose champion answers, where params.yaml names several tasks.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0: all of them.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option("--threads", type=click.IntRange(1), help="Requests answered at the same time; else the cores.")
@click.option("--waiting", default=64, show_default=True, type=click.IntRange(0),
              help="Requests that may wait beside them; more are refused with status 503.")
@click.option("--no-page", is_flag=True, help="The API alone, without the page.")
def serve(model: str | None, task: str | None, host: str, port: int, threads: int | None, waiting: int,
          no_page: bool) -> None:
    """Serve a model: a page in the browser, and an API that takes sound.

    POST /predict takes sound files and answers as `heartml predict --json`. POST /invocations takes a table of samples
    as MLflow's server does. GET /health, /version, /docs and /openapi.json describe the server. The page at / runs the
    model in the visitor's browser, so that no sound reaches the server.

    The model is exported when it starts, once. NAME and NAME@ALIAS follow the registry: when another version becomes
    champion, the server answers with it within seconds. NAME/VERSION stays. The server has no passwords and no
    encryption: put a proxy with both in front of it before it listens to a network. Not a medical device.

    \b
    Reads        the model (else the task's champion), params.yaml
    Writes       the export and the page in .heartml/cache
    Exit status  0: ended by Ctrl-C or a signal; 1: it cannot start, one line says why; 2: wrong usage

    \b
    Examples:
    heartml serve
    heartml serve simulated-murmur/1 --port 8080
    curl -F file=@recording.wav http://127.0.0.1:8000/predict
    """
    from heartml.server import run as server

    server.run(model, task, server.Place(host, port), threads, waiting, with_page=not no_page)


COMMANDS = (export, serve)
