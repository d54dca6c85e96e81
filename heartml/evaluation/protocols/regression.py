"""Numbers instead of classes, for instance lung function or a breathing rate: how well encoders predict them.

In: a CSV with the columns `path`, `patient_id` and `value`, recordings beside it. Out: for each encoder and pooling the
mean absolute error and the mean absolute error in percent, each person predicted by a fit on all others, beside what
the mean of the others would be wrong by. The OPERA benchmark (arXiv 2406.16148) reports these two errors, with plain
least squares; here it is ridge regression.

Nothing else in the project predicts a number. So there is no task, no search and no model for it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from heartml.audio import entry_checks, sound_files
from heartml.core.config import Params
from heartml.core.system import cells, tables
from heartml.core.system.cells import CellError
from heartml.core.system.tables import Row
from heartml.core.system.text import short
from heartml.core.system.untrusted import DocumentError
from heartml.core.task_definition import Organ
from heartml.evaluation.probe import ridge
from heartml.evaluation.probe.ridge import Floats, Groups
from heartml.evaluation.protocols.cohort import ProtocolError
from heartml.evaluation.protocols.opera import vectors
from heartml.evaluation.protocols.opera.cases import Case
from heartml.metrics.bootstrap import Interval, mean_interval
from heartml.metrics.scores import json_number
from heartml.models import encoders

POOLINGS = ("average", "mean")
_LARGEST = 1e100       # squares of larger numbers are no numbers
COLUMNS = ("path", "patient_id", "value")


def run(path: Path, names: Sequence[str], params: Params, organ: Organ) -> dict[str, Any]:
    """Predict the numbers of a table from every encoder's vectors.

    Returns:
        `recordings`, `persons`, `fits` (`one person` or `a fold of persons` is left out), `baseline` and `encoders`:
        rows with `encoder`, `pooling`, `mae`, `mape`, and `against_baseline`, the difference of the absolute errors;
        each has value, low and high over persons. `mape` is null where a value is zero.

    Raises:
        ProtocolError: the table or a recording cannot be used; the message names the line.
        EncoderError, ParamsError, WeightsError: see `encoders.spec`.
    """
    own = params.for_organ(organ)
    specs = {name: encoders.spec(name, own) for name in dict.fromkeys(names)}
    read, values = _cases(path)
    groups = np.array([case.group for case in read])
    persons = len(set(groups))
    if persons <= ridge.INNER_FOLDS + 1:
        raise ProtocolError(f"{path}: {persons} persons, and at least {ridge.INNER_FOLDS + 2} are needed")
    baseline = ridge.mean_of_others(values, groups)
    rows = []
    for name, spec in specs.items():
        for pooling, found in vectors.pooled(spec, read, POOLINGS, f"regression: {name}").items():
            predicted = ridge.predict(found, values, groups)
            rows.append({"encoder": name, "pooling": pooling, **_errors(values, predicted, groups, own),
                         "against_baseline": _interval(abs(predicted - values) - abs(baseline - values), groups, own)})
    return {"recordings": len(read), "persons": persons,
            "fits": "one person" if persons <= ridge.MOST_ALONE else "a fold of persons",
            "confidence": own.evaluate.confidence, "baseline": _errors(values, baseline, groups, own), "encoders": rows}


def _errors(values: Floats, predicted: Floats, groups: Groups, params: Params) -> dict[str, Any]:
    wrong = abs(predicted - values)
    percent = None if (values == 0).any() else _interval(100 * wrong / abs(values), groups, params)
    return {"mae": _interval(wrong, groups, params), "mape": percent}


def _interval(values: Floats, groups: Groups, params: Params) -> dict[str, float | None]:
    found: Interval = mean_interval(values, groups, resamples=params.evaluate.bootstrap,
                                    confidence=params.evaluate.confidence, rng=np.random.default_rng(params.seed))
    return {"value": json_number(found.value), "low": json_number(found.low), "high": json_number(found.high)}


def _cases(path: Path) -> tuple[list[Case], Floats]:
    """The recordings of a table and their numbers `[n]`.

    Raises:
        ProtocolError: the table cannot be read, or a line cannot be used.
    """
    try:
        names, found = tables.read(path, COLUMNS)
        tables.refuse_missing(names, ("path", "value"))
        rows = tables.refuse_empty(list(found))
    except DocumentError as error:
        raise ProtocolError(f"{path}: {error}") from None
    pairs = []
    for row in rows:
        try:
            if row.too_long:
                raise CellError("more cells than the table has columns: is a comma not quoted?")
            pairs.append((_case(path.parent, row), _number(row["value"])))
        except (CellError, sound_files.AudioError) as error:
            raise ProtocolError(f"{path} line {row.line}: {error}") from None
    _refuse_one_person_as_two(path, rows, [case for case, _ in pairs])
    return [case for case, _ in pairs], np.array([value for _, value in pairs])


def _refuse_one_person_as_two(path: Path, rows: Sequence[Row], read: Sequence[Case]) -> None:
    """Refuse other spellings of an id, and one sound in two lines: a person would be in training and in test.

    Raises:
        ProtocolError: there is one; the message names the line.
    """
    persons = [row["patient_id"] for row in rows]
    line_of = {person: row.line for person, row in reversed(list(zip(persons, rows, strict=True)))}
    for person, others in cells.other_spellings(filter(None, persons)).items():
        where = {other: f"line {line_of[other]}" for other in others}
        raise ProtocolError(f"{path} line {line_of[person]}: {cells.spelling_fault(person, where)}")
    seen: dict[str, int] = {}
    for row, case in zip(rows, read, strict=True):
        if (before := seen.setdefault(case.recording_id, row.line)) != row.line:
            raise ProtocolError(f"{path} line {row.line}: {short(row['path'])} has the samples of line {before}. Keep "
                                "one of the two lines")


def _case(folder: Path, row: Row) -> Case:
    """The recording of a line; without a patient it is a person of its own.

    Raises:
        AudioError: it cannot be read.
        CellError: its path leads out of the folder, or the patient's id cannot be used.
    """
    file = folder / row["path"]
    if fault := entry_checks.path_fault(folder, file):
        raise CellError(f"path {short(row['path'])}: {fault.detail}")
    person = cells.identifier(row["patient_id"])
    recording_id = sound_files.read(file).recording_id
    return Case(file, row["path"], recording_id, None, "", person or recording_id)


def _number(cell: str) -> float:
    try:
        found = float(cell)
    except ValueError:
        found = math.nan
    if not math.isfinite(found) or abs(found) > _LARGEST:
        raise CellError(f"value {short(cell)} is no number: write one with a point, or leave the line out")
    return found


def show(found: Mapping[str, Any]) -> None:
    """Print the results of `run`."""
    console = Console(width=None if Console().is_terminal else 160)
    title = f"{found['recordings']} recordings of {found['persons']} persons; {found['fits']} is left out of each fit"
    table = Table(title=title, title_justify="left")
    for name in ("encoder", "pooling", "MAE", "MAPE in %", "MAE less that of the mean"):
        table.add_column(name, justify="left" if name in ("encoder", "pooling") else "right", no_wrap=True)
    baseline = [_cell(found["baseline"][key]) for key in ("mae", "mape")]
    table.add_row("mean of the others", "", *baseline, "", style="dim")
    for row in found["encoders"]:
        table.add_row(row["encoder"], row["pooling"], _cell(row["mae"]), _cell(row["mape"]),
                      _cell(row["against_baseline"], sign="+"))
    console.print(table)


def _cell(interval: Mapping[str, float] | None, sign: str = "") -> str:
    if interval is None:
        return "a value is 0"
    return f"{interval['value']:{sign}.3g} [{interval['low']:{sign}.3g}, {interval['high']:{sign}.3g}]"
