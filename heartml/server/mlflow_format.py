"""`/invocations` as MLflow's scoring server has it: a table of samples as JSON in, predictions as JSON out.

The table is that of `heartml.inference.serving`. It may come as `dataframe_split` or as `dataframe_records`, MLflow's
two formats of a table.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from heartml.server.served import Served
from heartml.server.uploads import BadRequest


def answer(body: bytes, served: Served) -> dict[str, Any]:
    """The predictions for a table.

    Raises:
        BadRequest: the body is no such table, or a row of it cannot be used.
    """
    import pandas as pd

    from heartml.inference import serving

    try:
        sent = json.loads(body)
        if "dataframe_split" in sent:
            table = pd.DataFrame(sent["dataframe_split"]["data"], columns=sent["dataframe_split"]["columns"])
        else:
            table = pd.DataFrame(sent["dataframe_records"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadRequest("no table: send JSON with `dataframe_split` or `dataframe_records` (docs/export.md has an "
                         "example)") from None
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
