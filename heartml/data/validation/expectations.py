"""What is expected of the data: the suites of Great Expectations.

In: the limits of `params.yaml`. Out: for each table of `tables.suite_tables` a list of expectations. Their severity is
`critical` (the tasks of the data set stop), `warning` (shown in the report) or `info`. The description is the sentence
that a person reads. `meta["way_out"]` says what to do where the expectation does not hold.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from great_expectations import expectations as gxe
from great_expectations.expectations.expectation import Expectation

from heartml.core import paths, schema
from heartml.core.config import IngestParams, ValidateParams
from heartml.core.tasks import LABELS, Task

Suites = Mapping[str, Sequence[Expectation]]

_INGEST = "Run `heartml ingest` again: it quarantines such rows with the reason."
_TIMES = "They are used as they are. Correct the publisher's times and run `heartml ingest` again."
_TWO_LABELS = ("Of one data set: `heartml ingest` again quarantines both. Of two: empty one of the labels in its table "
               "and ingest that collection again.")
_LISTEN = "Listen to them; the report shows whether errors gather there."
_NEEDED = {"dataset": "data set", "group_id": "group", "source_sha256": "source checksum", "licence": "licence"}


def _expect(kind: type[Expectation], severity: str, description: str, way_out: str, **kwargs: Any) -> Expectation:
    return kind(severity=severity, description=description, meta={"way_out": way_out}, **kwargs)  # type: ignore[arg-type]


def suites(
    ingest: IngestParams, params: ValidateParams, labels: Sequence[str], own: Iterable[Task] = (), *,
    numbered: bool = True, breaths: bool = True, lungs: ValidateParams | None = None,
) -> Suites:
    """The expectations for each table, by the table's name.

    Args:
        ingest: the limits of ingest.
        params: the limits of validation.
        labels: the label columns of the recordings table.
        own: the tasks that data sets declare.
        numbered: whether there is a table of runs of numbered files. Where all persons are known there is none.
        breaths: whether there is a table of marked breaths. Hearts have none.
        lungs: limits of warnings about recordings of lungs; `None` where there are none.
    """
    return {
        "recordings": _of_recordings(ingest, labels, own),
        "annotations": _of_annotations(),
        "signals": _of_signals(ingest, params, "Heart"),
        **({"lung_signals": _of_signals(ingest, lungs, "Lung")} if lungs else {}),
        "pairs": _of_pairs(ingest, params),
        "patients": _of_patients(),
        "sessions": [_expect(
            gxe.ExpectColumnValuesToBeBetween, "warning", "What was recorded in one session belongs to one group",
            "Where persons are known nothing is joined; the report scores sessions that training has heard apart.",
            column="groups", max_value=1,
        )],
        "classes": [_expect(
            gxe.ExpectColumnValuesToBeBetween, "warning",
            f"Every class has at least {params.min_class_groups} groups; below that it is not estimable",
            "Add recordings of other people, or read its numbers as anecdotes.",
            column="groups", min_value=params.min_class_groups,
        )],
        **({"numbered": [_of_numbered()]} if numbered else {}),
        **({"breaths": _of_times("Breaths and their events")} if breaths else {}),
        "quarantine": [_expect(
            gxe.ExpectTableRowCountToEqual, "info", "No file was refused at ingest",
            "data/quarantine.parquet gives each file's reason.", value=0,
        )],
    }


def _of_numbered() -> Expectation:
    return _expect(
        gxe.ExpectColumnValuesToBeBetween, "warning",
        "Recordings of unknown persons with consecutive file numbers and one class belong to one group",
        "They may be one person on both sides of the split. Name the persons, or expect lower scores on others.",
        column="groups", max_value=1)


def _of_recordings(ingest: IngestParams, labels: Sequence[str], own: Iterable[Task]) -> list[Expectation]:
    allowed = {schema.label_column(name): classes for name, classes in LABELS.items()}
    for task in own:    # several data sets may declare one name; each row was checked against its own at ingest
        column = schema.label_column(task.label)
        allowed[column] = tuple(dict.fromkeys((*allowed.get(column, ()), *task.classes)))
    return [
        _expect(gxe.ExpectTableRowCountToBeBetween, "critical", "There are recordings",
                "Run `heartml ingest`, or `dvc pull data.dvc`.", min_value=1),
        _expect(gxe.ExpectColumnValuesToBeUnique, "critical", "No two rows hold the same samples", _INGEST,
                column="recording_id"),
        _expect(gxe.ExpectCompoundColumnsToBeUnique, "critical", "No source file stands in two rows", _INGEST,
                column_list=["dataset", "source_file"]),
        *(_expect(gxe.ExpectColumnValuesToNotBeNull, "critical", f"Every recording has a {what}", _INGEST,
                  column=column) for column, what in _NEEDED.items()),
        _expect(gxe.ExpectColumnValuesToBeBetween, "critical", f"Recordings last at least {ingest.min_seconds:g} s",
                _INGEST, column="seconds", min_value=ingest.min_seconds),
        *(_expect(gxe.ExpectColumnValuesToBeInSet, "critical", f"{column} is {', '.join(allowed[column])} or empty",
                  _INGEST, column=column, value_set=list(allowed[column])) for column in labels if column in allowed),
    ]


def _of_annotations() -> list[Expectation]:
    return [
        _expect(gxe.ExpectColumnValuesToBeInSet, "warning", "Heart states are S1, systole, S2, diastole or unannotated",
                _TIMES, column="state", value_set=[*schema.STATES, schema.UNANNOTATED]),
        *_of_times("Heart states"),
    ]


def _of_times(what: str) -> list[Expectation]:
    return [
        _expect(gxe.ExpectColumnPairValuesAToBeGreaterThanB, "warning", f"{what} end after they start", _TIMES,
                column_A="end_s", column_B="start_s", or_equal=True),
        _expect(gxe.ExpectColumnPairValuesAToBeGreaterThanB, "warning", f"{what} lie inside their recording",
                _TIMES, column_A="recording_end_s", column_B="end_s", or_equal=True),
    ]


def _of_signals(ingest: IngestParams, params: ValidateParams, organ: str) -> list[Expectation]:
    def between(severity: str, description: str, column: str, **bounds: float) -> Expectation:
        way_out = _INGEST if severity == "critical" else _LISTEN
        return _expect(gxe.ExpectColumnValuesToBeBetween, severity, description, way_out, column=column, **bounds)

    return [
        _expect(gxe.ExpectColumnValuesToBeNull, "critical", "Every recording is on disk and decodes to its own name",
                f"`{paths.RESTORE_DATA}` brings the file back (`dvc pull --force data.dvc` where the cache lacks it).",
                column="fault"),
        between("critical", f"No silence: peaks reach {ingest.silence_peak:g} of full scale", "peak",
                min_value=ingest.silence_peak),
        between("warning", f"Recordings last at least {params.short_seconds:g} s", "seconds",
                min_value=params.short_seconds),
        between("warning", f"Not too quiet: peaks reach {params.quiet_peak:g} of full scale", "peak",
                min_value=params.quiet_peak),
        between("warning", "Less than half of a recording is silent", "silent_share", max_value=0.5, strict_max=True),
        between("warning", f"At most {100 * params.clipped_share:g} % of the samples are clipped", "clipped_share",
                max_value=params.clipped_share),
        between("warning", f"DC offset within {params.dc_offset:g} of full scale", "dc",
                min_value=-params.dc_offset, max_value=params.dc_offset),
        between("warning", f"Not muffled: there is sound above {params.bandwidth_hz:g} Hz", "heard_bandwidth_hz",
                min_value=params.bandwidth_hz),
        between("warning", f"{organ} sounds stand out: {params.contrast_db:g} dB from quiet to loud moments",
                "contrast_db", min_value=params.contrast_db),
    ]


def _of_pairs(ingest: IngestParams, params: ValidateParams) -> list[Expectation]:
    same, near = ingest.duplicate_correlation, params.near_duplicate_correlation
    return [
        _expect(gxe.ExpectColumnValuesToBeNull, "critical",
                f"The same audio (correlation {same:g} or more) does not carry two labels", _TWO_LABELS,
                column="contradiction"),
        _expect(gxe.ExpectColumnValuesToBeNull, "warning",
                f"Nearly the same audio (correlation {near:g} to {same:g}) does not carry two labels",
                "Listen to both: one label may be wrong. They share a group, so neither examines the other.",
                column="ambiguity"),
        _expect(gxe.ExpectColumnValuesToBeNull, "warning",
                f"Nearly the same audio (correlation {near:g} or more) belongs to one group",
                "Nothing to do: their groups are joined in groups.parquet, which the split obeys.", column="joins"),
    ]


def _of_patients() -> list[Expectation]:
    return [
        _expect(gxe.ExpectColumnValuesToBeBetween, "critical", "Every patient belongs to one group", _INGEST,
                column="groups", min_value=1, max_value=1),
        _expect(gxe.ExpectColumnValuesToBeNull, "critical", "A label that belongs to the patient has one value",
                _INGEST, column="contradiction"),
        _expect(gxe.ExpectColumnValuesToBeNull, "warning", "A patient's recordings share their label",
                "Allowed: recordings of one person may differ. They stay in one group.", column="several_labels"),
    ]
