"""The output of `heartml predict`: a table for the terminal, JSON for a program, CSV for a spreadsheet."""

import csv
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartml.core.schema import STATES
from heartml.core.system.files import replacing
from heartml.core.system.text import csv_cell, printable
from heartml.inference.murmur_words import MurmurDescription
from heartml.inference.predict import NOTICE, PredictResult, ScoredRecording, UnitPrediction
from heartml.inference.training_recordings import KnownRecordings
from heartml.models.segmentation import Segmentation

_NAMED = 3      # recordings in one line

if TYPE_CHECKING:
    from rich.table import Table


WHAT_TO_DO = ("What to do: record again, longer, in a quiet place, with the chest piece still. For another stethoscope "
              "or clinic, `heartml validate-source` measures the model on labelled recordings from there.")


def show(result: PredictResult) -> None:
    """Print the predictions as a table to standard output; nothing where there are none.

    Faults are printed by the caller.
    """
    if not result.predictions:
        return
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)      # a file or a pipe has no width
    console.print(_table(result))
    named = list(zip(_names(result), result.predictions, strict=True))
    rates = [f"{name}: {rate}" for name, one in named if (rate := _heart_rate(one))]
    murmurs = [f"{name}: {one.description.phrase_with_confidence}"
               for name, one in named if one.description and one.description.phrase and not one.outside]
    warnings = [f"{name}: {'; '.join(one.warnings)}" for name, one in named if one.warnings]
    referred = [f"{name}: {'; '.join(one.reasons)}" for name, one in named if one.reasons]
    referred += [WHAT_TO_DO] if any(one.outside for one in result.predictions) else []
    sections = (("Caution", list(result.cautions)), ("Referred to a human", referred),
                ("Training data", known_lines(result)), ("Heart rate per minute", rates),
                ("Murmurs, each feature with its confidence", murmurs), ("Signal quality", warnings))
    listed = [line for title, lines in sections if lines for line in (title, *(f"  {line}" for line in lines), "")]
    notes = ("The number after a decision is its confidence. Probabilities are calibrated for recordings like those of "
             "the training. The decision follows the task's metric, which weights classes; it need not be the most "
             "probable class.", NOTICE)
    accepted = f" It also accepts recordings of {', '.join(result.accepted_sources)} (sources/)."
    for line in (*listed, f"Model: {result.model.description}.{accepted if result.accepted_sources else ''}", *notes):
        console.print(printable(line), markup=False, highlight=False, soft_wrap=not console.is_terminal)


def known_lines(result: PredictResult) -> list[str]:
    """How many of the recordings the model was trained or tested on, with the first ones by name."""
    found: dict[str, list[str]] = {"trained": [], "held out": []}
    scored = [recording for one in result.predictions for recording in one.recordings]
    for recording in scored:
        if use := result.known.use_of(recording.recording_id):
            found[use].append(recording.item.path.name)
    words = {"trained": "the model was trained on them, so their predictions say nothing about other recordings",
             "held out": "the model was tested on them, with the scores of its report"}
    return [f"{len(names)} of {len(scored)} recordings ({', '.join(names[:_NAMED])}{', ...' * (len(names) > _NAMED)}): "
            f"{words[use]}" for use, names in found.items() if names]


def _table(result: PredictResult) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    several = any(len(one.recordings) > 1 for one in result.predictions)
    table = Table(title=result.task, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"{result.unit} (recordings)" if several else result.unit, overflow="fold")
    table.add_column("decision", no_wrap=True)
    for name in result.classes:
        table.add_column(name, justify="right", no_wrap=True)
    for unit, one in zip(_names(result), result.predictions, strict=True):
        usable = sum(recording.fault is None for recording in one.recordings)
        first = printable(unit) + (f" ({usable})" if several else "")
        numbers = ["-" if one.outside else f"{probability:.3f}" for probability in one.calibrated.values()]
        table.add_row(*map(Text, [first, decision_text(one), *numbers]))
    return table


def decision_text(prediction: UnitPrediction) -> str:
    """`Present 81%`, or `refer (Present 28%)`; `refer` alone where the model cannot judge the recording at all."""
    if prediction.outside:
        return prediction.decision
    text = f"{prediction.top_class} {prediction.confidence:.0%}"
    return text if prediction.decision == prediction.top_class else f"{prediction.decision} ({text})"


def _names(result: PredictResult) -> list[str]:
    """A name for each unit: a file's name without its folder, unless another file has the same name."""
    short = [Path(one.unit_id).name for one in result.predictions]
    times = Counter(short)
    return [name if times[name] == 1 else one.unit_id for name, one in zip(short, result.predictions, strict=True)]


def _heart_rate(prediction: UnitPrediction) -> str:
    """`104`, or `98 to 107 in 4 recordings`; empty where no recording has a heart rate."""
    found = [one.heart.heart_rate_per_min for one in prediction.recordings if one.heart and not one.findings]
    rates = sorted(rate for rate in found if rate is not None)
    if not rates:
        return ""
    return f"{rates[0]:.0f}" if len(rates) == 1 else f"{rates[0]:.0f} to {rates[-1]:.0f} in {len(rates)} recordings"


def fault_line(recording: ScoredRecording) -> str:
    """Why one file was not scored, in one line; empty where it was."""
    fault = recording.fault
    return f"{printable(recording.item.path)}: {printable(fault.detail)} [{fault.reason}]" if fault else ""


def as_json(result: PredictResult) -> str:
    """Everything as JSON text, in ASCII, so that any file name can be printed on any terminal."""
    return json.dumps(as_values(result), indent=2, allow_nan=False)


def as_values(result: PredictResult) -> dict[str, Any]:
    """Everything as plain values."""
    scored = [{**_of_unit(one), "recordings": [_of_recording(recording, result.known) for recording in one.recordings]}
              for one in result.predictions]
    model = {"source": result.model.description, "name": result.model.name, "version": result.model.version}
    return {"notice": NOTICE, "model": model, "task": result.task, "unit": result.unit,
            "classes": list(result.classes), "answers": scored,
            "not_scored": [_of_recording(recording, result.known) for recording in result.faults],
            "cautions": list(result.cautions), "accepted_sources": list(result.accepted_sources)}


def _of_unit(prediction: UnitPrediction) -> dict[str, Any]:
    return {"unit_id": prediction.unit_id, "decision": prediction.decision, "leaning": prediction.top_class,
            "confidence": prediction.confidence, "calibrated": dict(prediction.calibrated),
            "probabilities": dict(prediction.probabilities),
            "description": _of_murmur(prediction.description) if prediction.description else None,
            "reasons": list(prediction.reasons), "outside": prediction.outside, "warnings": list(prediction.warnings)}


def _of_murmur(description: MurmurDescription) -> dict[str, Any]:
    features = [{"name": feature.name, "decision": feature.decision, "confidence": feature.confidence,
                 "said": feature in description.reported, "calibrated": dict(feature.calibrated),
                 "model": feature.model}
                for feature in description.features]
    return {"phrase": description.phrase, "loudest_at": description.loudest_at, "features": features}


def _of_recording(recording: ScoredRecording, known: KnownRecordings) -> dict[str, Any]:
    item, heart = recording.item, recording.heart
    fault = {"reason": recording.fault.reason, "detail": recording.fault.detail} if recording.fault else None
    return {"path": str(item.path), "patient_id": item.patient_id, "location": item.location,
            "seconds": recording.seconds, "error": fault, "warnings": list(recording.warnings),
            "findings": [asdict(found) for found in recording.findings],
            "probabilities": dict(recording.probabilities), "heart": _of_heart(heart) if heart else None,
            "used_for": known.use_of(recording.recording_id)}


def _of_heart(heart: Segmentation) -> dict[str, Any]:
    return {"rate_per_min": heart.heart_rate_per_min,
            **{f"{state.lower()}_onsets_s": [round(float(t), 3) for t in heart.onsets_s(state)] for state in STATES}}


def used_for(prediction: UnitPrediction, known: KnownRecordings) -> str:
    """`trained`, `held out`, or both, for the recordings of a unit; empty where all are new to the model."""
    uses = [known.use_of(recording.recording_id) for recording in prediction.recordings]
    return "; ".join(dict.fromkeys(use for use in uses if use))


def write_csv(result: PredictResult, path: Path) -> None:
    """Write one row for each unit, then one for each file that was not scored.

    Columns: unit_id, decision, confidence, c_<class> (calibrated probabilities), p_<class> (probabilities as the
    decision rule used them), leaning (the top class, also where the decision is `refer`), description (of a murmur),
    recordings, warnings, error, model, cautions (what to know about the model before its predictions are trusted),
    used_for (what the model used recordings of this unit for: trained, held out), reasons (why the decision is left to
    a human). No cell is a formula to a spreadsheet.
    """
    columns = ["unit_id", "decision", "confidence", *(f"c_{name}" for name in result.classes),
               *(f"p_{name}" for name in result.classes),
               "leaning", "description", "recordings", "warnings", "error", "model", "cautions", "used_for", "reasons"]
    of_model = (result.model.description, "; ".join(result.cautions))
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(csv_cell, columns))
        for one in result.predictions:
            numbers = [one.confidence, *one.calibrated.values(), *one.probabilities.values()]
            files = "; ".join(str(recording.item.path) for recording in one.recordings if not recording.fault)
            murmur = one.description.phrase_with_confidence if one.description else ""
            texts = (one.top_class, murmur, files, "; ".join(one.warnings), "", *of_model, used_for(one, result.known),
                     "; ".join(one.reasons))
            writer.writerow([csv_cell(one.unit_id), csv_cell(one.decision), *(f"{x:.6f}" for x in numbers),
                             *map(csv_cell, texts)])
        for recording in result.faults:
            item, blank = recording.item, [""] * (2 + 2 * len(result.classes))
            texts = ("", "", str(item.path), "", fault_line(recording), *of_model, "", "")
            writer.writerow([csv_cell(item.patient_id or item.path), *blank, *map(csv_cell, texts)])
