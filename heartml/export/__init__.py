"""Export a fitted model as ONNX files that run without torch: a phone, a browser, any language.

In: a registered version or a model's folder. Out: a folder with `model.onnx`, `patient.onnx`, perhaps `model.int8.onnx`,
and `export.json` with its signature; see `heartml.inference.exported`. The files are compared with the model itself
before they are written: an export whose numbers differ is refused.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartml.core import config
from heartml.core.system import parallel
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import canonical_json, replacing_folder
from heartml.export import comparison, statement
from heartml.export.comparison import Comparison
from heartml.inference import exported, model_lookup
from heartml.models.fitted_model import Model
from heartml.registry import signing, version_cautions

LARGEST_DIFFERENCE = 1e-4      # of any probability
AIM_BYTES = 6_000_000          # of model.onnx: a phone fetches it over a mobile network in a second or two


class ExportRefused(HeartMLError):  # noqa: N818 - names what is the case
    """The exported files do not answer as the model does, or a library is missing."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: where.
        description: the model, in words.
        bytes: name -> size of each file.
        comparison: the answers of `model.onnx` beside those of the model.
        small: the same for `model.int8.onnx`; `None` where it was not asked for.
        cautions: what to know about the model before its answers are trusted.
    """

    folder: Path
    description: str
    bytes: dict[str, int]
    comparison: Comparison
    small: Comparison | None
    cautions: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {"folder": str(self.folder), "model": self.description, "bytes": self.bytes,
                "comparison": self.comparison.as_json(), "small": self.small.as_json() if self.small else None,
                "cautions": list(self.cautions)}


def run(wanted: str | None, task: str | None, to: Path, *, int8: bool, recordings: int) -> Exported:
    """Export a model into the new folder `to`.

    Args:
        wanted, task: see `heartml.inference.model_lookup.locate`.
        int8: also write the file with eight-bit weights.
        recordings: how many recordings the files are compared on.

    Raises:
        ExportRefused: the files do not answer as the model does, a library is missing, or `to` exists already.
        CannotExport: the model has a part that cannot be written as a graph.
        NoModel: there is no such model.
        CautionedModel: see `heartml.registry.version_cautions.check`.
    """
    check_libraries()
    if to.exists() and (not exported.is_export(to) or to.is_symlink()):
        raise ExportRefused(f"{to}: exists already and is no export; name a new folder")
    parallel.single_thread()
    params = config.load()
    located = model_lookup.locate(wanted, task, params.tasks)
    version_cautions.check(located.cautions, params.predict)
    model = Model.load(located.folder)
    facts = statement.facts(located, model, params)
    with replacing_folder(to) as temporary:
        written = write_graphs(model, temporary, facts, int8=int8)
        sounds = comparison.sounds(located, recordings)
        compared = comparison.compare(model, temporary, facts, sounds, written[0])
        small = comparison.compare(model, temporary, facts, sounds, exported.SMALL) if int8 else None
        if compared.largest_difference > LARGEST_DIFFERENCE or compared.decided_alike < compared.recordings:
            raise ExportRefused(f"{located.description}: {compared.words}; at most {LARGEST_DIFFERENCE:g} is allowed")
        whole = {**facts, "compared": compared.as_json(), "compared_int8": small.as_json() if small else None,
                 "files": {name: statement.file_facts(temporary / name) for name in written}}
        write_statement(temporary, whole)
        sizes = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
    return Exported(to, located.description, sizes, compared, small, located.cautions)


def write_graphs(model: Model, folder: Path, facts: dict[str, Any], *, int8: bool) -> list[str]:
    """Write the ONNX files of a model into an existing folder; returns their names, the one for a recording first."""
    from heartml.export import graph
    from heartml.export.graph.int8 import with_eight_bits

    graphs = graph.of_model(model)
    made = {exported.RECORDING: graphs.recording, exported.UNIT: graphs.unit}
    if int8:
        made[exported.SMALL] = with_eight_bits(graphs.recording)
    for name, proto in made.items():
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

