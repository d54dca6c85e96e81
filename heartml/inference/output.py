"""What `heartml predict` hands out: a table for a person, JSON for a program, CSV for a spreadsheet."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartml.core.schema import STATES
from heartml.core.system.files import replacing
from heartml.core.system.text import cell, printable
from heartml.inference.murmur_words import MurmurDescription
from heartml.inference.predict import NOTICE, Result, ScoredRecording, UnitPrediction
from heartml.models.segmentation import Segmentation

if TYPE_CHECKING:
    from rich.table import Table


def show(result: Result) -> None:
    """Print the answers as a table on standard output; faults are the caller's to print."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)      # a file or a pipe has no edge to fold at
    if result.answers:
        console.print(_table(result))
    named = list(zip(_names(result), result.answers, strict=True))
    lines = [f"{name}: {'; '.join(answer.warnings)}" for name, answer in named if answer.warnings]
    murmurs = [f"{name}: {answer.description.phrase_with_confidence}"
               for name, answer in named if answer.description and answer.description.phrase]
    rates = [f"{name}: {rate}" for name, answer in named if (rate := _heart_rate(answer))]
    rates = ["Heart rate a minute", *(f"  {line}" for line in rates), ""] if rates else []
    described = ["Murmurs, each feature with its confidence", *(f"  {line}" for line in murmurs), ""] if murmurs else []
    lines = ["Signal quality", *(f"  {line}" for line in lines), ""] if lines else []
    for line in (*rates, *described, *lines, f"Model: {result.model.words}.",
                 "Behind each decision stands its confidence; all probabilities are calibrated. The decision follows "
                 "the task's metric, which weighs classes, and need not be the most probable one.", NOTICE):
        console.print(printable(line), markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _table(result: Result) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    several = any(len(answer.recordings) > 1 for answer in result.answers)
    table = Table(title=result.task, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"{result.unit} (recordings)" if several else result.unit, overflow="fold")
    table.add_column("decision", no_wrap=True)
    for name in result.classes:
        table.add_column(name, justify="right", no_wrap=True)
    for unit, answer in zip(_names(result), result.answers, strict=True):
        usable = sum(heard.fault is None for heard in answer.recordings)
        first = printable(unit) + (f" ({usable})" if several else "")
        numbers = [f"{probability:.3f}" for probability in answer.calibrated.values()]
        table.add_row(*map(Text, [first, _decided(answer), *numbers]))
    return table


def _decided(answer: UnitPrediction) -> str:
    """`Present 81%`, or `refer (Present 28%)`."""
    words = f"{answer.leaning} {answer.confidence:.0%}"
    return words if answer.decision == answer.leaning else f"{answer.decision} ({words})"


def _names(result: Result) -> list[str]:
    """Each unit as short as it is clear: a file's name without its folder, where no other file is called the same."""
    short = [Path(answer.unit_id).name for answer in result.answers]
    times = Counter(short)
    return [name if times[name] == 1 else answer.unit_id for name, answer in zip(short, result.answers, strict=True)]


def _heart_rate(answer: UnitPrediction) -> str:
    """`104`, or `98 to 107 in 4 recordings`; empty where no recording tells."""
    told = [heard.heart.heart_rate_per_min for heard in answer.recordings if heard.heart]
    rates = sorted(rate for rate in told if rate is not None)
    if not rates:
        return ""
    return f"{rates[0]:.0f}" if len(rates) == 1 else f"{rates[0]:.0f} to {rates[-1]:.0f} in {len(rates)} recordings"


def complaint(heard: ScoredRecording) -> str:
    """Why one file was not scored, in one line."""
    fault = heard.fault
    return f"{printable(heard.item.path)}: {printable(fault.detail)} [{fault.reason}]" if fault else ""


def as_json(result: Result) -> str:
    """Everything, as JSON text (ASCII, so that any file name survives any terminal)."""
    scored = [{**_of_unit(answer), "recordings": [_of_recording(h) for h in answer.recordings]}
              for answer in result.answers]
    model = {"source": result.model.words, "name": result.model.name, "version": result.model.version}
    whole = {"notice": NOTICE, "model": model, "task": result.task, "unit": result.unit,
             "classes": list(result.classes), "answers": scored,
             "not_scored": [_of_recording(heard) for heard in result.faults]}
    return json.dumps(whole, indent=2, allow_nan=False)


def _of_unit(answer: UnitPrediction) -> dict[str, Any]:
    return {"unit_id": answer.unit_id, "decision": answer.decision, "leaning": answer.leaning,
            "confidence": answer.confidence, "calibrated": dict(answer.calibrated),
            "probabilities": dict(answer.probabilities),
            "description": _of_murmur(answer.description) if answer.description else None,
            "warnings": list(answer.warnings)}


def _of_murmur(description: MurmurDescription) -> dict[str, Any]:
    features = [{"name": feature.name, "decision": feature.decision, "confidence": feature.confidence,
                 "said": feature in description.said, "calibrated": dict(feature.calibrated), "model": feature.model}
                for feature in description.features]
    return {"phrase": description.phrase, "loudest_at": description.loudest_at, "features": features}


def _of_recording(heard: ScoredRecording) -> dict[str, Any]:
    fault = {"reason": heard.fault.reason, "detail": heard.fault.detail} if heard.fault else None
    return {"path": str(heard.item.path), "patient_id": heard.item.patient_id, "location": heard.item.location,
            "seconds": heard.seconds, "error": fault, "warnings": list(heard.warnings),
            "probabilities": dict(heard.probabilities), "heart": _of_heart(heard.heart) if heard.heart else None}


def _of_heart(heart: Segmentation) -> dict[str, Any]:
    return {"rate_per_min": heart.heart_rate_per_min,
            **{f"{state.lower()}_onsets_s": [round(float(t), 3) for t in heart.onsets_s(state)] for state in STATES}}


def write_csv(result: Result, path: Path) -> None:
    """One row a unit, then one for each file that was not scored; no cell that a spreadsheet would calculate.

    Columns: unit_id, decision, confidence, c_<class> (calibrated), p_<class> (what the decision rule looked at),
    leaning (the class, also where the decision is to refer), description (of a murmur), recordings, warnings, error,
    model.
    """
    columns = ["unit_id", "decision", "confidence", *(f"c_{name}" for name in result.classes),
               *(f"p_{name}" for name in result.classes),
               "leaning", "description", "recordings", "warnings", "error", "model"]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(cell, columns))
        for answer in result.answers:
            numbers = [answer.confidence, *answer.calibrated.values(), *answer.probabilities.values()]
            files = "; ".join(str(h.item.path) for h in answer.recordings if not h.fault)
            murmur = answer.description.phrase_with_confidence if answer.description else ""
            words = (answer.leaning, murmur, files, "; ".join(answer.warnings), "", result.model.words)
            writer.writerow([cell(answer.unit_id), cell(answer.decision), *(f"{x:.6f}" for x in numbers),
                             *map(cell, words)])
        for heard in result.faults:
            blank = [""] * (2 + 2 * len(result.classes))
            words = ("", "", str(heard.item.path), "", complaint(heard), result.model.words)
            writer.writerow([cell(heard.item.patient_id or heard.item.path), *blank, *map(cell, words)])
