"""What `heartml predict` hands out: a table for a person, JSON for a program, CSV for a spreadsheet."""

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartml.files import replacing
from heartml.inputs import printable
from heartml.predict import NOTICE, Answer, Heard, Result

if TYPE_CHECKING:
    from rich.text import Text

_FORMULA = ("=", "+", "-", "@", "\t", "\r")     # what a spreadsheet would calculate when it opens the file


def show(result: Result) -> None:
    """Print the answers as a table on standard output; faults are the caller's to print."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if result.answers:
        several = any(len(answer.recordings) > 1 for answer in result.answers)
        table = Table(title=result.task, title_justify="left")
        table.add_column(result.unit, overflow="fold")
        for name in (*(("recordings",) if several else ()), "decision", "confidence", *result.classes):
            table.add_column(name, justify="left" if name == "decision" else "right")
        table.add_column("signal quality", overflow="fold")
        for answer in result.answers:
            table.add_row(*_cells(answer, several))
        console.print(table)
    for line in (f"Model: {result.model.words}.",
                 "Probabilities and confidence are calibrated. The decision follows the task's metric, which weighs "
                 "classes: it need not be the most probable class.", NOTICE):
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _cells(answer: Answer, several: bool) -> list["Text"]:
    from rich.text import Text

    usable = sum(h.fault is None for h in answer.recordings)
    words = [printable(answer.unit_id), *([str(usable)] if several else [])]
    words += [answer.decision, f"{answer.confidence:.0%}", *(f"{p:.3f}" for p in answer.calibrated.values())]
    cells = [Text(word) for word in words]
    return [*cells, Text(printable("; ".join(answer.warnings)) or "good", "yellow" if answer.warnings else "dim")]


def complaint(heard: Heard) -> str:
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


def _of_unit(answer: Answer) -> dict[str, Any]:
    return {"unit_id": answer.unit_id, "decision": answer.decision, "confidence": answer.confidence,
            "calibrated": dict(answer.calibrated), "probabilities": dict(answer.probabilities),
            "warnings": list(answer.warnings)}


def _of_recording(heard: Heard) -> dict[str, Any]:
    fault = {"reason": heard.fault.reason, "detail": heard.fault.detail} if heard.fault else None
    return {"path": str(heard.item.path), "patient_id": heard.item.patient_id, "location": heard.item.location,
            "seconds": heard.seconds, "error": fault, "warnings": list(heard.warnings),
            "probabilities": dict(heard.probabilities)}


def write_csv(result: Result, path: Path) -> None:
    """One row a unit, then one for each file that was not scored; no cell that a spreadsheet would calculate.

    Columns: unit_id, decision, confidence, c_<class> (calibrated), p_<class> (what the decision rule looked at),
    recordings, warnings, error, model.
    """
    columns = ["unit_id", "decision", "confidence", *(f"c_{name}" for name in result.classes),
               *(f"p_{name}" for name in result.classes), "recordings", "warnings", "error", "model"]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for answer in result.answers:
            numbers = [answer.confidence, *answer.calibrated.values(), *answer.probabilities.values()]
            files = "; ".join(str(h.item.path) for h in answer.recordings if not h.fault)
            words = (files, "; ".join(answer.warnings), "", result.model.words)
            writer.writerow([_cell(answer.unit_id), _cell(answer.decision), *(f"{x:.6f}" for x in numbers),
                             *map(_cell, words)])
        for heard in result.faults:
            blank = [""] * (2 + 2 * len(result.classes))
            words = (str(heard.item.path), "", complaint(heard), result.model.words)
            writer.writerow([_cell(heard.item.patient_id or heard.item.path), *blank, *map(_cell, words)])


def _cell(value: object) -> str:
    """A text that a spreadsheet shows and never calculates."""
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
