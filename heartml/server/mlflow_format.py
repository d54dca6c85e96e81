"""`/invocations` as MLflow's scoring server has it: a table of samples as JSON in, predictions as JSON out.

The table is that of `heartml.inference.serving`. It comes in one of MLflow's four formats: `dataframe_split`,
`dataframe_records`, `instances` (a list of rows, as the second) or `inputs` (a list for each column).
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from heartml.server.served import Served
from heartml.server.uploads import BadRequest

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_SAMPLES = {"type": "array", "items": {"type": "number"}, "description": "Of one recording; full scale is 1"}
_COLUMNS: dict[str, dict[str, Any]] = {
    "samples": _SAMPLES, "sample_rate_hz": {"type": "integer"},
    "unit_id": {"type": "string", "nullable": True, "description": "Rows of one patient share it; may be left out"}}
_NEEDED = ["samples", "sample_rate_hz"]
_ROWS = {"type": "array", "items": {"type": "object", "required": _NEEDED, "properties": _COLUMNS}}
_SPLIT = {"type": "object", "required": ["columns", "data"], "properties": {
    "columns": {"type": "array", "items": {"enum": list(_COLUMNS)}},
    "data": {"type": "array", "items": {"type": "array"}}}}
_BY_COLUMN = {"type": "object", "required": _NEEDED, "properties": {
    name: {"type": "array", "items": kind} for name, kind in _COLUMNS.items()}}
BODY = {"requestBody": {"required": True, "content": {"application/json": {
    "schema": {"oneOf": [{"type": "object", "required": [kind], "properties": {kind: own}} for kind, own in zip(
        FORMATS, (_SPLIT, _ROWS, _ROWS, _BY_COLUMN), strict=True)]},
    "example": {"dataframe_records": [{"samples": [0.0, 0.01, -0.01], "sample_rate_hz": 4000, "unit_id": "2530"}]}}}}}
PREDICTIONS = {"description": "A row for each patient, or recording, in the order of arrival", "content": {
    "application/json": {"schema": {"type": "object", "properties": {"predictions": {"type": "array", "items": {
        "type": "object", "properties": {
            "unit_id": {"type": "string"}, "decision": {"type": "string", "description": "A class, or `refer`"},
            "confidence": {"type": "number"}, "leaning": {"type": "string"}},
        "additionalProperties": {"description": "`c_CLASS`, `p_CLASS`: probabilities; `warnings`, `reasons`"}}}}}}}}


def answer(body: bytes, served: Served) -> dict[str, Any]:
    """The predictions for a table.

    Raises:
        BadRequest: the body is no such table, or a row of it cannot be used.
    """
    import pandas as pd

    from heartml.inference import serving

    try:
        [(kind, sent)] = [(kind, sent) for kind, sent in json.loads(body).items() if kind in FORMATS]
        table = pd.DataFrame(sent["data"], columns=sent["columns"]) if kind == "dataframe_split" else pd.DataFrame(
            {name: list(values) for name, values in sent.items()} if kind == "inputs" else [dict(row) for row in sent])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadRequest(f"no table: send JSON with one of {', '.join(FORMATS)} (docs/export.md has an example)"
                         ) from None
    if table.columns.has_duplicates:
        raise BadRequest("two columns have the same name")
    try:
        found = serving.predict_table(_model(served.located.folder), served.params, table, served.located.cautions)
    except serving.Refused as error:
        raise BadRequest(error.message) from None
    return {"predictions": json.loads(found.to_json(orient="records"))}


@lru_cache(maxsize=1)
def _model(folder: Path) -> Any:
    from heartml.models.fitted_model import Model

    return Model.load(folder)
