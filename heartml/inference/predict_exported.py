"""Predict with an exported model: files in, the result of `heartml.inference.predict` out, in a third of the time.

Neither torch nor the members of the ensemble are read. Murmurs are not described, because descriptors are models of
their own.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from heartml.core import paths
from heartml.core.config import Params
from heartml.core.system import hashing
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import write_json
from heartml.core.system.progress import track
from heartml.core.task_definition import HEART
from heartml.inference import exported, inputs, model_lookup, murmur_words, predict, training_recordings
from heartml.inference.exported import Answer, ExportedModel, RecordingAnswer
from heartml.inference.inputs import InputFile
from heartml.inference.model_lookup import LocatedModel
from heartml.inference.model_set import MURMUR
from heartml.inference.predict import PredictResult, ScoredRecording, UnitPrediction
from heartml.models import applicability
from heartml.models.applicability import UNLIKE, Finding, conditions, words
from heartml.models.applicability.signal_limits import SignalLimits
from heartml.models.segmentation import Segmentation
from heartml.registry import signing, version_cautions
from heartml.registry.signing import keys


def run(named: Sequence[Path], folder: Path, params: Params, of: LocatedModel | None = None) -> PredictResult:
    """Score the files, folders and tables `named` with the exported model in `folder`.

    Args:
        of: the model that it was exported from, where it is known; its present cautions count then.

    Raises:
        InputsError: there is nothing to score.
        ExportError: the folder holds no export, or its files are not those that were exported.
        SignatureRefused: `export.json` is not what was signed.
        CautionedModel: see `model_set.cautions`.
    """
    items = inputs.gather(named)
    model = ExportedModel.load(folder)
    verify(folder)
    facts = model.statement
    located = LocatedModel(folder, f"{facts['model']}, exported to {folder}", str(facts["name"]), facts["version"],
                           tuple(facts["cautions"]))
    if of is not None:
        which = f"a student of {of.description}" if facts.get("student") else of.description
        located = replace(of, description=f"{which}, exported to {folder}")
    version_cautions.check(located.cautions, params.predict)
    return predict_files(items, model, located, params)


def verify(folder: Path, *, again: bool = False) -> None:
    """Check `export.json` against its signature, unless signatures are switched off.

    The result is noted under the content of both and the trusted keys, so that the same signature is checked once.

    Args:
        again: check it even if there is such a note.

    Raises:
        SignatureRefused: it is not what was signed, or no trusted key signed it.
    """
    if not signing.required():
        return
    if not (folder / exported.SIGNATURE).is_file():
        raise signing.SignatureRefused(f"{folder}: not signed (no {exported.SIGNATURE}). Export it again")
    statement, signature, trusted = folder / exported.STATEMENT, folder / exported.SIGNATURE, keys.trusted()
    checked = hashing.sha256("\n".join([
        hashing.sha256_file(statement), hashing.sha256_file(signature),
        *sorted(key.fingerprint for key in trusted)]).encode())
    note = paths.cache() / "exports" / f"{checked}.verified"      # reading the library takes half a second
    if again or not note.is_file():
        signing.verify_file(statement, signature, trusted, str(folder))
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()


def predict_files(
    items: Sequence[InputFile], model: ExportedModel, located: LocatedModel, params: Params
) -> PredictResult:
    """Predict for files `[n]`, unit by unit."""
    facts = model.statement
    unit_of = inputs.units(items, facts["unit"])
    members: dict[str, list[InputFile]] = {}
    for item, unit_id in zip(items, unit_of, strict=True):
        members.setdefault(unit_id, []).append(item)
    predictions: list[UnitPrediction] = []
    faults: list[ScoredRecording] = []
    for unit_id, own in track(members.items(), "predict", len(members)):
        answered = [answer(item, model, params) for item in own]
        recordings = tuple(recording for recording, _ in answered)
        faults += [recording for recording in recordings if recording.fault]
        found = [one for _, one in answered if one is not None]
        if found:
            of_unit = found[0] if len(found) == 1 else model.unit([one.features for one in found])
            predictions.append(_prediction(unit_id, of_unit, recordings, facts, params))
    known = training_recordings.read(located.folds)
    return PredictResult(located, str(facts["name"]), str(facts["unit"]), tuple(facts["classes"]), tuple(predictions),
                         tuple(faults), located.cautions, known)


def answer(item: InputFile, model: ExportedModel, params: Params) -> tuple[ScoredRecording, RecordingAnswer | None]:
    """Read, check and answer one file; without an answer where it has a fault."""
    recording, waveform = predict.read_recording(item, params, model.statement.get("organ", HEART))
    if waveform is None:
        return recording, None
    found = model.recording(*waveform)
    heart = None
    if len(found.states):
        heart = Segmentation(found.state_starts_s.astype(np.float64), found.states, recording.seconds)
    return replace(recording, probabilities=found.recording_probabilities, heart=heart,
                   findings=findings(recording, found, model.statement)), found


def findings(recording: ScoredRecording, found: RecordingAnswer, facts: Any) -> tuple[Finding, ...]:
    """Why the model cannot judge a recording, as `heartml.models.applicability.Applicability.judge` says it."""
    if not facts["references"]:
        return ()
    assert recording.quality
    signal = SignalLimits(**facts["signal_limits"])
    of_signal = [Finding(*one) for one in signal.findings(recording.quality)]
    organ = facts.get("organ", HEART)
    return (*of_signal, *(_of_sound(found, name, facts["references"], words(organ)[name]) for name in found.own_checks
                          if name in (*conditions(organ)[1:], UNLIKE)))


def _of_sound(found: RecordingAnswer, check: str, references: Sequence[Any], told: str) -> Finding:
    nearest = int(np.argmin([d / one["farthest"] for d, one in zip(found.distances, references, strict=True)]))
    if check == UNLIKE:
        return Finding(check, told, float(found.distances[nearest]), references[nearest]["farthest"])
    return Finding(check, told, found.unusual, references[nearest]["most_unusual"])


def _prediction(unit_id: str, found: Answer, recordings: tuple[ScoredRecording, ...], facts: Any,
                params: Params) -> UnitPrediction:
    usable = [one.findings for one in recordings if one.fault is None]
    reasons = [one.words for one in applicability.reasons(usable)]
    unsure = [facts["reasons"]["unsure"]] if "unsure" in found.checks else []
    return UnitPrediction(unit_id, found.decision, found.top_class, found.confidence, found.calibrated,
                          found.probabilities, recordings, _description(found, recordings, facts, params),
                          (*reasons, *unsure), found.outside)


def _description(found: Answer, recordings: Sequence[ScoredRecording], facts: Any, params: Params) -> Any:
    """Where a murmur is loudest; its features are told by models of their own, which are not in an export."""
    if not str(facts["name"]).endswith(f"-{MURMUR}") or found.outside or found.top_class != facts["positive"]:
        return None
    at = [(one.item.location, one.probabilities[found.top_class]) for one in recordings if one.fault is None]
    return murmur_words.describe([], at, params.predict)


def registered(folder: Path, params: Params) -> LocatedModel | None:
    """The version that was exported, as the registry knows it now; `None` where it is not at hand."""
    facts = exported.read_statement(folder)
    if facts["version"] is None:
        return None
    try:
        located = model_lookup.locate(f"{facts['name']}/{facts['version']}", None, params.tasks, verified=False)
        same = hashing.sha256_folder(located.folder) == facts["model_sha256"]
    except HeartMLError:
        return None
    return located if same else None


def remember(folder: Path) -> None:
    """Note where a model was exported to, so that `of_model` finds it."""
    statement = exported.read_statement(folder)
    write_json(_note(str(statement["model_sha256"])), {"folder": str(folder.resolve())})


def of_model(located: LocatedModel) -> Path | None:
    """The folder that a model was exported to, if it is still there and holds this model, no student; else `None`."""
    note = _note(hashing.sha256_folder(located.folder))
    try:
        folder = Path(json.loads(note.read_text(encoding="utf-8"))["folder"])
        statement = json.loads((folder / exported.STATEMENT).read_text(encoding="utf-8"))
        same = (statement["model_sha256"], statement["version"]) == (note.stem, located.version)
        same = same and not statement.get("student")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if same else None


def _note(model_sha256: str) -> Path:
    return paths.cache() / "exports" / f"{model_sha256}.json"

