"""The output of `heartml predict` for several tasks: one row for each unit, with a decision for each task."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heartml.core.system.files import replacing
from heartml.core.system.text import csv_cell, printable
from heartml.inference import output
from heartml.inference.predict import NOTICE, PredictResult, UnitPrediction
from heartml.inference.several_tasks import SeveralResults

if TYPE_CHECKING:
    from rich.table import Table


def rows(results: Sequence[PredictResult]) -> dict[str, list[UnitPrediction | None]]:
    """Unit -> its prediction for each task, `None` where a task has none for it, in the order of the units."""
    found: dict[str, list[UnitPrediction | None]] = {}
    for number, result in enumerate(results):
        for one in result.predictions:
            found.setdefault(one.unit_id, [None] * len(results))[number] = one
    return found


def show(found: SeveralResults) -> None:
    """Print one table of all tasks, then the files that could not be scored (on stderr), then what to know."""
    console = output.console_for_tables()
    by_unit = rows(found.results)
    if by_unit:
        console.print(_table(found.results, by_unit))
    output.print_faults(found.results[0])
    first = {unit: next(one for one in of_unit if one) for unit, of_unit in by_unit.items()}
    name = {unit: output.unit_name(one, found.results[0]) for unit, one in first.items()}
    cautions = [line for result in found.results for line in result.cautions]
    known = [f"{result.task}: {line}" for result in found.results for line in output.known_lines(result)]
    warnings = [f"{name[unit]}: {'; '.join(one.warnings)}" for unit, one in first.items() if one.warnings]
    referred = [f"{name[one.unit_id]}, {result.task}: {'; '.join(one.reasons)}"
                for result in found.results for one in result.predictions if one.reasons]
    sections = (("Caution", list(dict.fromkeys(cautions))), ("Referred to a human", referred), ("Training data", known),
                ("Signal quality", warnings), ("Without a prediction", list(found.left_out)))
    listed = [line for title, lines in sections if lines for line in (title, *(f"  {line}" for line in lines), "")]
    models = [f"Model: {result.model.description}." for result in found.results]
    notes = ("The number after a decision is its calibrated confidence.", NOTICE)
    for line in (*listed, *models, *notes):
        console.print(printable(line), markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _table(results: Sequence[PredictResult], by_unit: dict[str, list[UnitPrediction | None]]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(" or ".join(dict.fromkeys(result.unit for result in results)), overflow="fold")
    for result in results:
        table.add_column(Text(result.task), overflow="fold")
    for of_unit in by_unit.values():
        decisions = [output.decision_text(one) if one else "" for one in of_unit]
        first = next(one for one in of_unit if one)
        table.add_row(*map(Text, [printable(output.unit_name(first, results[0])), *decisions]))
    return table


def as_json(found: SeveralResults) -> str:
    """`tasks`: for each task what `output.as_json` has for one; `left_out`: why others have no prediction."""
    whole = {"notice": NOTICE, "tasks": [output.as_values(result) for result in found.results],
             "left_out": list(found.left_out)}
    return json.dumps(whole, indent=2, allow_nan=False)


def write_csv(found: SeveralResults, path: Path) -> None:
    """Write one row for each unit, then one for each file that was not scored.

    Columns: unit_id; for each task `TASK decision`, `TASK leaning` (the top class), `TASK confidence`, `TASK c_CLASS`
    (calibrated probabilities), `TASK reasons` and `TASK used_for` (see `output.write_csv`); recordings, warnings,
    error, models, cautions.
    """
    of_task = [(result, [f"{result.task} {name}" for name in (
        "decision", "leaning", "confidence", *(f"c_{c}" for c in result.classes), "reasons", "used_for")])
        for result in found.results]
    columns = ["unit_id", *(name for _, names in of_task for name in names),
               "recordings", "warnings", "error", "models", "cautions"]
    of_models = ("; ".join(result.model.description for result in found.results),
                 "; ".join(dict.fromkeys(line for result in found.results for line in result.cautions)))
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(csv_cell, columns))
        for unit, of_unit in rows(found.results).items():
            first = next(one for one in of_unit if one)
            cells = [cell for one, (result, names) in zip(of_unit, of_task, strict=True)
                     for cell in (_cells(one, result) if one else [""] * len(names))]
            files = "; ".join(str(recording.item.path) for recording in first.recordings if not recording.fault)
            writer.writerow([csv_cell(unit), *cells, csv_cell(files), csv_cell("; ".join(first.warnings)), "",
                             *map(csv_cell, of_models)])
        for recording in found.results[0].faults:
            item, blank = recording.item, [""] * (len(columns) - 6)
            texts = (str(item.path), "", output.fault_line(recording), *of_models)
            writer.writerow([csv_cell(item.patient_id or item.path), *blank, *map(csv_cell, texts)])


def _cells(one: UnitPrediction, result: PredictResult) -> list[str]:
    numbers = [one.confidence, *one.calibrated.values()]
    return [csv_cell(one.decision), csv_cell(one.top_class), *(f"{x:.6f}" for x in numbers),
            csv_cell("; ".join(one.reasons)), csv_cell(output.used_for(one, result.known))]
