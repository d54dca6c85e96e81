"""The output of `heartml predict`: a table for the terminal, JSON for a program, CSV for a spreadsheet."""

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartml.core.schema import STATES
from heartml.core.system.files import replacing
from heartml.core.system.text import csv_cell, printable
from heartml.inference import data_recordings
from heartml.inference.murmur_words import MurmurDescription
from heartml.inference.predict import NOTICE, PredictResult, ScoredRecording, UnitPrediction
from heartml.inference.training_recordings import KnownRecordings
from heartml.models.segmentation import Segmentation

_NAMED = 3      # recordings in one line
_WIDE = 160     # columns
_MOST_NAME, _MOST_DECISION, _MOST_CELL, _MOST_WORD, _NUMBER = 40, 30, 24, 14, 5      # columns of the table's parts
_COLUMNS = {    # beyond the model's answer, shown where any unit has something in them
    "label": "what data/ says", "used": "what the model used the recordings for", "bpm": "heart rate per minute",
    "signal": "warnings, in full below",
}

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


WHAT_TO_DO = ("What to do: record again, longer, in a quiet place, with the chest piece still. For another stethoscope "
              "or clinic, `heartml validate-source` measures the model on labelled recordings from there.")


def show(result: PredictResult) -> None:
    """Print the predictions as a table, then the files that could not be scored (on stderr), then what to know."""
    if not result.predictions:
        print_faults(result)
        return
    console = console_for_tables()
    fits = _class_columns_fit(result, console.width)
    console.print(_table(result, with_classes=fits))
    print_faults(result)
    named = list(zip(_names(result), result.predictions, strict=True))
    murmurs = [f"{name}: {one.description.phrase_with_confidence}"
               for name, one in named if one.description and one.description.phrase and not one.outside]
    warnings = [f"{name}: {'; '.join(one.warnings)}" for name, one in named if one.warnings]
    referred = [f"{name}: {'; '.join(one.reasons)}" for name, one in named if one.reasons]
    referred += [WHAT_TO_DO] if any(one.outside for one in result.predictions) else []
    probabilities = [f"{name}: {_probabilities(one)}" for name, one in named if not fits and not one.outside]
    sections = (("Caution", list(result.cautions)), ("Probabilities", probabilities), ("Referred to a human", referred),
                ("Training data", known_lines(result, named=False)),
                ("Murmurs, each feature with its confidence", murmurs), ("Signal quality", warnings))
    listed = [line for title, lines in sections if lines for line in (title, *(f"  {line}" for line in lines), "")]
    columns = "; ".join(f"{title}: {_COLUMNS[title]}" for title in _more_columns(result))
    notes = (*([f"Columns: {columns}."] if columns else []),
             "The number after a decision is its confidence. Probabilities are calibrated for recordings like those of "
             "the training. The decision follows the task's metric, which weights classes; it need not be the most "
             "probable class.", NOTICE)
    accepted = f" It also accepts recordings of {', '.join(result.accepted_sources)} (sources/)."
    for line in (*listed, f"Model: {result.model.description}.{accepted if result.accepted_sources else ''}", *notes):
        console.print(printable(line), markup=False, highlight=False, soft_wrap=not console.is_terminal)


def console_for_tables() -> "Console":
    """A console on standard output; a file or a pipe has no width, and gets a wide one."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_WIDE)


def print_faults(result: PredictResult) -> None:
    """Print one line to stderr for each file that could not be scored."""
    for recording in result.faults:
        print(f"heartml: {fault_line(recording)}", file=sys.stderr, flush=True)


def known_lines(result: PredictResult, *, named: bool = True) -> list[str]:
    """How many of the recordings the model was trained or tested on, with the first ones by name where asked."""
    found: dict[str, list[str]] = {"trained": [], "held out": []}
    scored = [recording for one in result.predictions for recording in one.recordings]
    for recording in scored:
        if use := result.known.use_of(recording.recording_id):
            found[use].append(_file_name(recording, result))
    words = {"trained": "the model was trained on them, so their predictions say nothing about other recordings",
             "held out": "the model was tested on them, with the scores of its report"}
    return [f"{len(names)} of {len(scored)} recordings{_first(names) if named else f', {use}'}: {words[use]}"
            for use, names in found.items() if names]


def _first(names: Sequence[str]) -> str:
    return f" ({', '.join(names[:_NAMED])}{', ...' * (len(names) > _NAMED)})"


def _class_columns_fit(result: PredictResult, width: int) -> bool:
    """Whether a table with a column for each class is no wider than `width`, so that no name or number is cut."""
    others = [_longest(_names(result), _MOST_NAME), _longest(map(decision_text, result.predictions), _MOST_DECISION),
              *(_longest([title, *cells], _MOST_CELL) for title, cells in _more_columns(result).items())]
    widths = [*others, *map(_class_width, result.classes)]
    return sum(widths) + 2 * len(widths) + 2 <= width


def _longest(cells: Iterable[str], most: int) -> int:
    return min(most, max(map(len, cells), default=0))


def _class_width(name: str) -> int:
    """Columns for the numbers of a class: its longest word, which is folded where it is very long."""
    return min(_MOST_WORD, max(_NUMBER, *map(len, printable(name).split() or [""])))


def _probabilities(prediction: UnitPrediction) -> str:
    return ", ".join(f"{name} {probability:.3f}" for name, probability in prediction.calibrated.items())


def _table(result: PredictResult, *, with_classes: bool = True) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    several = any(len(one.recordings) > 1 for one in result.predictions)
    table = Table(title=result.task, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(f"{result.unit} (recordings)" if several else result.unit, overflow="fold", max_width=_MOST_NAME)
    table.add_column("decision", overflow="fold", max_width=_MOST_DECISION)
    for name in result.classes if with_classes else ():
        table.add_column(Text(printable(name)), justify="right", overflow="fold", width=_class_width(name))
    more = _more_columns(result)
    for title in more:
        table.add_column(title, justify="right" if title == "bpm" else "left", overflow="fold", max_width=_MOST_CELL)
    for row, (unit, one) in enumerate(zip(_names(result), result.predictions, strict=True)):
        usable = sum(recording.fault is None for recording in one.recordings)
        first = printable(unit) + (f" ({usable})" if several else "")
        numbers = ["-" if one.outside else f"{probability:.3f}" for probability in one.calibrated.values()]
        numbers = numbers if with_classes else []
        further = [printable(cells[row]) for cells in more.values()]
        table.add_row(*map(Text, [first, decision_text(one), *numbers, *further]))
    return table


def _more_columns(result: PredictResult) -> dict[str, list[str]]:
    units = result.predictions
    cells = ([known_label(one, result) for one in units], [used_for(one, result.known) for one in units],
             [_heart_rate(one) for one in units], [_signal(one) for one in units])
    return {title: column for title, column in zip(_COLUMNS, cells, strict=True) if any(column)}


def known_label(prediction: UnitPrediction, result: PredictResult) -> str:
    """The label that `data/` has for the unit; empty where it has none."""
    found = [one.label for recording in prediction.recordings
             if (one := result.of_data.get(recording.recording_id)) and one.label]
    return "; ".join(dict.fromkeys(found))


def _signal(prediction: UnitPrediction) -> str:
    faults = sum(recording.fault is not None for recording in prediction.recordings)
    words = [word for recording in prediction.recordings for word in recording.short_warnings]
    return ", ".join([*([f"{faults} not usable"] if faults else []), *dict.fromkeys(words)])


def decision_text(prediction: UnitPrediction) -> str:
    """`Present 81%`, or `refer (Present 28%)`; `refer` alone where the model cannot judge the recording at all."""
    if prediction.outside:
        return prediction.decision
    text = f"{prediction.top_class} {prediction.confidence:.0%}"
    return text if prediction.decision == prediction.top_class else f"{prediction.decision} ({text})"


def _names(result: PredictResult) -> list[str]:
    """A name for each unit: `unit_name`, or the whole path where two units would have the same."""
    short = [unit_name(one, result) for one in result.predictions]
    times = Counter(short)
    return [name if times[name] == 1 else one.unit_id for name, one in zip(short, result.predictions, strict=True)]


def unit_name(prediction: UnitPrediction, result: PredictResult) -> str:
    """The patient; or the file's name, and for a file of `data/` the name that it had before ingest."""
    first = prediction.recordings[0]
    is_file = prediction.unit_id == str(first.item.path)
    return _file_name(first, result) if is_file else Path(prediction.unit_id).name


def _file_name(recording: ScoredRecording, result: PredictResult) -> str:
    """The file's name; where that is the hash of the samples, the name that it had before ingest."""
    path = recording.item.path
    known = data_recordings.name_of(result.of_data, recording.recording_id)
    return known if known and path.stem == recording.recording_id else path.name


def _heart_rate(prediction: UnitPrediction) -> str:
    """`104`, or `98 to 107` over several recordings; empty where no recording has a heart rate."""
    found = [one.heart.heart_rate_per_min for one in prediction.recordings if one.heart and not one.findings]
    rates = sorted(round(rate) for rate in found if rate is not None)
    return " to ".join(map(str, dict.fromkeys(rates[:1] + rates[-1:])))


def fault_line(recording: ScoredRecording) -> str:
    """Why one file was not scored, in one line; empty where it was."""
    fault = recording.fault
    return f"{printable(recording.item.path)}: {printable(fault.detail)} [{fault.reason}]" if fault else ""


def as_json(result: PredictResult) -> str:
    """Everything as JSON text, in ASCII, so that any file name can be printed on any terminal."""
    return json.dumps(as_values(result), indent=2, allow_nan=False)


def as_values(result: PredictResult) -> dict[str, Any]:
    """Everything as plain values."""
    scored = [{**_of_unit(one), "known_label": known_label(one, result) or None,
               "recordings": [_of_recording(recording, result) for recording in one.recordings]}
              for one in result.predictions]
    model = {"source": result.model.description, "name": result.model.name, "version": result.model.version}
    return {"notice": NOTICE, "model": model, "task": result.task, "unit": result.unit,
            "classes": list(result.classes), "answers": scored,
            "not_scored": [_of_recording(recording, result) for recording in result.faults],
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


def _of_recording(recording: ScoredRecording, result: PredictResult) -> dict[str, Any]:
    item, heart = recording.item, recording.heart
    of_data = result.of_data.get(recording.recording_id)
    fault = {"reason": recording.fault.reason, "detail": recording.fault.detail} if recording.fault else None
    return {"path": str(item.path), "patient_id": item.patient_id, "location": item.location,
            "seconds": recording.seconds, "error": fault, "warnings": list(recording.warnings),
            "findings": [asdict(found) for found in recording.findings],
            "probabilities": dict(recording.probabilities), "heart": _of_heart(heart) if heart else None,
            "used_for": result.known.use_of(recording.recording_id),
            "source_file": of_data.source_file if of_data else None}


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
    a human), known_label (the label that data/ has for the unit). No cell is a formula to a spreadsheet.
    """
    columns = ["unit_id", "decision", "confidence", *(f"c_{name}" for name in result.classes),
               *(f"p_{name}" for name in result.classes),
               "leaning", "description", "recordings", "warnings", "error", "model", "cautions", "used_for", "reasons",
               "known_label"]
    of_model = (result.model.description, "; ".join(result.cautions))
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(csv_cell, columns))
        for one in result.predictions:
            numbers = [one.confidence, *one.calibrated.values(), *one.probabilities.values()]
            files = "; ".join(str(recording.item.path) for recording in one.recordings if not recording.fault)
            murmur = one.description.phrase_with_confidence if one.description else ""
            texts = (one.top_class, murmur, files, "; ".join(one.warnings), "", *of_model, used_for(one, result.known),
                     "; ".join(one.reasons), known_label(one, result))
            writer.writerow([csv_cell(one.unit_id), csv_cell(one.decision), *(f"{x:.6f}" for x in numbers),
                             *map(csv_cell, texts)])
        for recording in result.faults:
            item, blank = recording.item, [""] * (2 + 2 * len(result.classes))
            texts = ("", "", str(item.path), "", fault_line(recording), *of_model, "", "", "")
            writer.writerow([csv_cell(item.patient_id or item.path), *blank, *map(csv_cell, texts)])
