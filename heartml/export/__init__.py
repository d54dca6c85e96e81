"""Export a fitted model as ONNX files that run without torch: a phone, a browser, any language.

In: a registered version or a model's folder. Out: a folder with `model.onnx`, `patient.onnx`, perhaps
`model.int8.onnx`, and `export.json` with its signature; see `heartml.inference.exported`. The files are compared with
the model itself before they are written: an export whose numbers differ is refused.
"""

import importlib.util
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heartml.core import config, paths
from heartml.core.config import Params
from heartml.core.system import parallel
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import canonical_json, replacing_folder, temporary_folder
from heartml.core.system.locks import exclusive
from heartml.export import comparison, statement
from heartml.export.comparison import Comparison
from heartml.inference import exported, model_lookup, predict_exported
from heartml.inference.model_lookup import LocatedModel
from heartml.models.fitted_model import Model
from heartml.registry import signing, version_cautions

AIM_BYTES = 6_000_000          # of model.onnx: a phone fetches it over a mobile network in a second or two


class ExportRefused(HeartMLError):  # noqa: N818 - names what is the case
    """The exported files do not answer as the model does, or a library is missing."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: where; `None` where only the page was asked for.
        description: the model, in words.
        bytes: name -> size of each file.
        comparison: the answers of `model.onnx` beside those of the model.
        small: the same for `model.int8.onnx`; `None` where it was not asked for.
        lost: what a student loses beside its ensemble, one line for each part of the data; empty where the ensemble
            itself was exported.
        cautions: what to know about the model before its answers are trusted.
    """

    folder: Path | None
    description: str
    bytes: dict[str, int]
    comparison: Comparison
    small: Comparison | None
    cautions: tuple[str, ...]
    lost: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {"folder": str(self.folder) if self.folder else None, "model": self.description, "bytes": self.bytes,
                "comparison": self.comparison.as_json(), "small": self.small.as_json() if self.small else None,
                "cautions": list(self.cautions), "lost": list(self.lost)}


def run(wanted: str | None, task: str | None, to: Path | None, *, int8: bool = False, recordings: int = 40,
        page: Path | None = None, runtime: Path | None = None, distil: bool = False) -> Exported:
    """Export a model into the folder `to`, and its page into the folder `page`.

    Args:
        wanted, task: see `heartml.inference.model_lookup.locate`.
        int8: also write the file with eight-bit weights.
        recordings: how many recordings the files are compared on.
        runtime: see `heartml.export.page.write`.
        distil: export a student in the place of the ensemble, see `heartml.export.student`.

    Raises:
        CannotDistil: see `heartml.export.student.make`.
        PageError: see there.
        ExportRefused: the files do not answer as the model does, a library is missing, or `to` exists already.
        CannotExport: the model has a part that cannot be written as a graph.
        NoModel: there is no such model.
        CautionedModel: see `heartml.registry.version_cautions.check`.
    """
    check_libraries()
    if to:
        _check_place(to, "export", exported.NAMES)
    if page:
        from heartml.export import page as pages

        _check_place(page, "page", pages.names_in(page))
    if to and page and to.resolve() == page.resolve():
        raise ExportRefused(f"--to and --page are the same folder, {to}: name two")
    parallel.single_thread()
    params = config.load()
    located = model_lookup.locate(wanted, task, params.tasks)
    version_cautions.check(located.cautions, params.predict)
    lock = exclusive(paths.LOCKS / "export.lock", on_wait="heartml export: waiting for another export")
    with lock, temporary_folder() as place:
        made = _made(located, params, place / "export", int8=int8, recordings=recordings, distil=distil)
        try:
            if page:
                pages.write(place / "export", page, runtime)
            if to:
                with replacing_folder(to) as temporary:
                    shutil.copytree(place / "export", temporary, dirs_exist_ok=True)
        except OSError as error:
            raise ExportRefused(f"{error.filename or to or page}: cannot be written: {error.strerror}") from None
        if to and not distil:       # a student does not answer in the place of its ensemble unless it is named
            predict_exported.remember(to)
    return replace(made, folder=to)


def _check_place(folder: Path, what: str, known: Collection[str]) -> None:
    """Check that a folder is new, or holds an earlier one and nothing else.

    Raises:
        ExportRefused: it is a link, a file, or holds something that is not ours.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ExportRefused(f"{folder}: a link or a file; name a new folder")
    here = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    strange = [name for name in here if name not in known]
    if strange:
        raise ExportRefused(f"{folder}: exists already and holds {strange[0]}, which is no part of an earlier {what}; "
                            "name a new folder")


def write(located: LocatedModel, to: Path, recordings: int = 10) -> None:
    """Export a model that was found already into the folder `to`; see `run`."""
    check_libraries()
    parallel.single_thread()
    with replacing_folder(to) as temporary:
        _made(located, config.load(), temporary, int8=False, recordings=recordings)


def _made(located: LocatedModel, params: Params, folder: Path, *, int8: bool, recordings: int,
          distil: bool = False) -> Exported:
    model, learnt = Model.load(located.folder), None
    if distil:
        from heartml.export import student

        learnt = student.make(located, model, params)
        located, model = replace(located, description=f"a student of {located.description}"), learnt.model
    facts = {**statement.facts(located, model, params), **({"student": learnt.as_json()} if learnt else {})}
    folder.mkdir(exist_ok=True)
    written = write_graphs(model, folder, facts, int8=int8)
    sounds = comparison.sounds(located, recordings)
    compared = comparison.compare(model, folder, facts, sounds, written[0])
    small = comparison.compare(model, folder, facts, sounds, exported.SMALL) if int8 else None
    if not compared.same:
        raise ExportRefused(f"{located.description}: its files do not answer as it does: {compared.words}")
    write_statement(folder, {
        **facts, "compared": compared.as_json(), "compared_int8": small.as_json() if small else None,
        "files": {name: statement.file_facts(folder / name) for name in written}})
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return Exported(folder, located.description, sizes, compared, small, located.cautions,
                    tuple(learnt.in_words()) if learnt else ())


def write_graphs(model: Model, folder: Path, facts: dict[str, Any], *, int8: bool) -> list[str]:
    """Write the ONNX files of a model into an existing folder; returns their names, the one for a recording first."""
    from heartml.export import graph
    from heartml.export.graph.folding import folded
    from heartml.export.graph.int8 import with_eight_bits

    graphs = graph.of_model(model)
    made = {exported.RECORDING: graphs.recording, exported.UNIT: graphs.unit}
    if int8:
        made[exported.SMALL] = with_eight_bits(graphs.recording)
    for name, whole in made.items():
        proto = folded(whole)
        statement.add_metadata(proto, facts)
        (folder / name).write_bytes(proto.SerializeToString(deterministic=True))
    return list(made)


def write_statement(folder: Path, whole: dict[str, Any]) -> None:
    """Write `export.json`, and its signature unless signatures are switched off."""
    text = canonical_json(whole)
    (folder / exported.STATEMENT).write_text(text, encoding="utf-8")
    if signing.required():
        (folder / exported.SIGNATURE).write_text(signing.sign_file(exported.STATEMENT, text), encoding="utf-8")


def check_libraries(needed: Sequence[str] = ("spox", "onnx", "onnxscript", "onnxruntime")) -> None:
    """Check that what an export needs is installed.

    Raises:
        ExportRefused: something is not.
    """
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportRefused(f"an export needs {', '.join(missing)}: {exported.EXTRA}")

