"""A model that `heartml export` wrote: sound samples in, a decision out, without torch and without MLflow.

The folder holds `model.onnx` (one recording), `patient.onnx` (several recordings of one patient), and `export.json`,
which says what the model is, what its outputs mean, and the SHA-256 of every file. `export.signature.json` signs
`export.json`.
"""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from heartml.core.system import hashing, untrusted
from heartml.core.system.errors import HeartMLError

STATEMENT, SIGNATURE = "export.json", "export.signature.json"
RECORDING, UNIT, SMALL = "model.onnx", "patient.onnx", "model.int8.onnx"
NAMES = (RECORDING, UNIT, SMALL, STATEMENT, SIGNATURE)
FORMAT = 1
EXTRA = "pip install -e '.[export]' brings them"


class ExportError(HeartMLError):
    """The folder holds no exported model, its files are not those that were exported, or a library is missing."""


@dataclass(frozen=True)
class Answer:
    """What the model says of one recording or one patient.

    Attributes:
        top_class: the class that the decision rule chose.
        decision: the same, or `refer`.
        confidence: calibrated probability of the top class.
        probabilities, calibrated: class -> probability.
        checks: for what it is referred: names of `export.json`'s `checks`; empty where it is not.
        outside: whether the model cannot judge the recordings, so that its probabilities mean nothing.
    """

    top_class: str
    decision: str
    confidence: float
    probabilities: Mapping[str, float]
    calibrated: Mapping[str, float]
    checks: tuple[str, ...]
    outside: bool


@dataclass(frozen=True)
class RecordingAnswer(Answer):
    """As `Answer`, of one recording, and what else is known about it.

    Attributes:
        features: `[f]`, what the patient's answer is made of.
        quality: measures of the signal, as in `heartml.audio.quality.Quality`.
        recording_probabilities: class -> probability from this recording alone.
        state_starts_s, states: when each heart state begins, in s, and its number in S1, systole, S2, diastole; empty
            where the model does not tell them.
        heart_rate_per_min: `None` where it is not known.
        own_checks: names of the checks that speak against judging this recording.
        unusual: probability of any condition but a heart as the model knows it.
        distances: from each reference of `export.json`.
    """

    features: NDArray[np.float64]
    quality: Mapping[str, float]
    recording_probabilities: Mapping[str, float]
    state_starts_s: NDArray[np.float32]
    states: NDArray[np.int64]
    heart_rate_per_min: float | None
    own_checks: tuple[str, ...]
    unusual: float
    distances: tuple[float, ...]


class ExportedModel:
    """The sessions of an exported model; one is made once and answers many recordings.

    Args:
        lasting: answer each recording a fifth faster, and be ready a tenth of a second later.

    Attributes:
        statement: the content of `export.json`.
    """

    def __init__(self, folder: Path, statement: Mapping[str, Any], recording: str = RECORDING, *,
                 lasting: bool = False) -> None:
        self.statement = statement
        self._folder, self._lasting = folder, lasting
        self._recording = _session(folder / recording, lasting=lasting)

    @cached_property
    def _unit(self) -> Any:
        return _session(self._folder / UNIT, lasting=self._lasting)

    @classmethod
    def load(cls, folder: Path, recording: str = RECORDING, *, lasting: bool = False) -> "ExportedModel":
        """Read the model in a folder, after its files were compared with `export.json`.

        Args:
            recording: name of the file for one recording; `SMALL` is the one with eight-bit weights.
            lasting: see the class.

        Raises:
            ExportError: see `read_statement`, or onnxruntime is missing.
        """
        return cls(folder, read_statement(folder), recording, lasting=lasting)

    def read_whole(self) -> None:
        """Read the part for several recordings too, so that nothing is read from the folder later."""
        assert self._unit

    def recording(self, samples: NDArray[np.float32], sample_rate_hz: int) -> RecordingAnswer:
        """The answer for one recording: samples `[time]`, full scale is 1. A patient with it alone has the same."""
        found = self._run(self._recording, {"samples": samples, "sample_rate_hz": np.array(sample_rate_hz, np.int64)})
        rate = float(found["heart_rate_per_min"]) if "heart_rate_per_min" in found else float("nan")
        return RecordingAnswer(
            **self._answer(found), features=found["features"],
            quality=dict(zip(self.statement["quality"], map(float, found["quality"]), strict=True)),
            recording_probabilities=self._by_class(found["recording_probabilities"]),
            state_starts_s=found.get("state_starts_s", np.zeros(0, np.float32)),
            states=found.get("states", np.zeros(0, np.int64)), heart_rate_per_min=None if np.isnan(rate) else rate,
            own_checks=self._named(found["recording_checks"]), unusual=float(found["unusual"]),
            distances=tuple(map(float, found["distances"])))

    def unit(self, features: Sequence[NDArray[np.float64]]) -> Answer:
        """The answer for a patient from the `features` of its recordings `[r]`, each `[f]`."""
        return Answer(**self._answer(self._run(self._unit, {"features": np.stack(features)})))

    def _answer(self, found: Mapping[str, Any]) -> dict[str, Any]:
        top_class = self.statement["classes"][int(found["decision"])]
        checks = self._named(found["reasons"])
        return {
            "top_class": top_class, "decision": "refer" if checks else top_class,
            "confidence": float(found["confidence"]), "probabilities": self._by_class(found["probabilities"]),
            "calibrated": self._by_class(found["calibrated"]), "checks": checks,
            "outside": any(name != "unsure" for name in checks),
        }

    def _named(self, marks: NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(name for name, yes in zip(self.statement["checks"], marks, strict=False) if yes)

    def _by_class(self, values: NDArray[np.float32]) -> dict[str, float]:
        return dict(zip(self.statement["classes"], map(float, values), strict=True))

    def _run(self, session: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, session.run(names, dict(inputs)), strict=True))
        sizes = {"probabilities": "classes", "reasons": "checks", "quality": "quality", "distances": "references"}
        wrong = [name for name, key in sizes.items() if name in found and len(found[name]) != len(self.statement[key])]
        if wrong:
            raise ExportError(f"{self._folder / STATEMENT}: {sizes[wrong[0]]} does not fit the model. Export again")
        return found


class _File(BaseModel):
    sha256: str
    bytes: int


class _Reference(BaseModel):
    name: str
    farthest: float
    most_unusual: float


class _Statement(BaseModel):
    """What `export.json` has to hold, so that nothing fails later that could be told here."""

    format: Literal[1]
    name: str
    version: str | None
    model: str
    unit: Literal["recording", "patient"]
    classes: Annotated[list[str], Field(min_length=2)]
    checks: list[str]
    quality: Annotated[list[str], Field(min_length=1)]
    reasons: dict[str, str]
    positive: str | None
    references: list[_Reference]
    signal_limits: dict[str, float]
    refer_below: float
    cautions: list[str]
    model_sha256: str
    files: dict[str, _File]


def library_here() -> bool:
    """Whether onnxruntime is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


def is_export(folder: Path) -> bool:
    """Whether a folder holds an exported model."""
    return (folder / STATEMENT).is_file() and (folder / RECORDING).is_file()


def read_statement(folder: Path, *, with_files: bool = True) -> Mapping[str, Any]:
    """The content of `export.json`, after every file that it names was compared with its hash.

    Args:
        with_files: compare the files, too.

    Raises:
        ExportError: there is no export, it is damaged, or a file is not the one that was exported.
    """
    if not (folder / STATEMENT).is_file():
        raise ExportError(f"{folder}: no exported model in it (no {STATEMENT}); `heartml export NAME --to {folder}` "
                          "writes one")
    try:
        statement: Mapping[str, Any] = json.loads(untrusted.read_text(folder / STATEMENT))
        checked = _Statement.model_validate(statement)
        files = {name: one.sha256 for name, one in checked.files.items()}
        known = {RECORDING, UNIT} <= set(files)
    except (untrusted.DocumentError, ValueError, RecursionError):
        known = False
    if not known:
        raise ExportError(f"{folder / STATEMENT}: damaged, or of another version of HeartML. Export again")
    for name, sha256 in files.items() if with_files else ():
        if Path(name).name != name or not (folder / name).is_file():
            raise ExportError(f"{folder}: {name} is missing. Export again")
        if hashing.sha256_file(folder / name) != sha256:
            raise ExportError(f"{folder / name}: not the file that was exported: changed, or cut. Export again")
    return statement


def _session(file: Path, *, lasting: bool) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ExportError(f"{file}: onnxruntime reads it, which is not installed; {EXTRA}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    levels = onnxruntime.GraphOptimizationLevel      # the file was made small when it was written; more reads slower
    options.graph_optimization_level = levels.ORT_ENABLE_BASIC if lasting else levels.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - whatever the library raises for a file it cannot read
        raise ExportError(f"{file}: cannot be read: {str(error).splitlines()[0][:200]}. Export again") from None
