"""The registered model as an MLflow pyfunc: a table of samples in, a table of decisions out. No pickle anywhere.

Input, one row for each recording: `samples` (array of numbers, full scale is 1), `sample_rate_hz`, and optionally
`unit_id`. Rows of one patient share a `unit_id`; a row without one is a unit of its own. Where the task's unit is the
recording, every row is a unit, and `unit_id` is only its name.

Output, one row for each unit in the order of arrival: `unit_id`, `decision` (a class, or `refer`), `confidence`
(calibrated probability of the top class), `c_<class>` (calibrated probabilities), `p_<class>` (probabilities as the
decision rule uses them), `leaning` (the top class, also where the decision is `refer`), `warnings`, `reasons` (why the
decision is `refer`). The warnings begin with what to know about the model itself
(heartml/registry/version_cautions.py), as it was when `heartml verify NAME --to FOLDER` made the copy that is served.
This has no column of its own: the columns are signed with each version.

MLflow runs this file when it loads the model. Importing it does nothing.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel

from heartml.audio import entry_checks, quality, sound_files
from heartml.audio.sound_files import Waveform
from heartml.core import config
from heartml.core.config import Params
from heartml.core.system import parallel
from heartml.core.task_definition import Organ
from heartml.models.fitted_model import Model
from heartml.models.shared_inputs import RatedWaveform
from heartml.registry import signing, version_cautions
from heartml.registry.signing import keys

Refused = MlflowException        # what `predict_table` raises; MLflow's server makes a status of it
MAX_ROWS = 256                   # of one request
MAX_SAMPLES = 30_000_000         # of all rows together: an hour at 8 kHz, 120 MB
MAX_NAME = 200                   # characters
LOUDEST = sound_files.LARGEST_FLOAT      # its square still fits into a float32


class Classifier(PythonModel):
    """A fitted ensemble (artifact `model`) with the parameters of its entry checks (artifact `params`)."""

    def load_context(self, context: Any) -> None:
        """Read the ensemble once, when the server starts.

        Raises:
            signing.Refused: the files differ from what was signed, or were signed with a key that is not trusted here
                (HEARTML_TRUSTED_KEYS). This check is code that came with the model, so also run `heartml verify`
                before you serve.
        """
        parallel.single_thread()
        stored = next(p for p in Path(context.artifacts["model"]).resolve().parents if (p / "MLmodel").is_file())
        if os.environ.get("HEARTML_SIGNING") != "off":
            signing.verify(stored, keys.trusted(), f"the served model {stored.name}")
        self.model = Model.load(Path(context.artifacts["model"]))
        self.params = config.load(Path(context.artifacts["params"]))
        self.cautions = version_cautions.read_beside(stored)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predict for the rows of `model_input`; see the docstring of this module for both tables."""
        return predict_table(self.model, self.params, model_input, self.cautions)


def predict_with(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    """What a server of the ensemble in `folder` would return for `table`."""
    return predict_table(Model.load(folder), config.load(), table)


def example() -> pd.DataFrame:
    """An example of the input table: one patient recorded at two locations, and a recording without a patient."""
    time_s = np.arange(2 * 4000) / 4000
    beats = np.sin(2 * np.pi * 50 * time_s) * np.sin(2 * np.pi * 0.75 * time_s) ** 20
    samples = [np.round(level * beats, 4).tolist() for level in (0.5, 0.3, 0.4)]
    return pd.DataFrame({"samples": samples, "sample_rate_hz": [4000] * 3, "unit_id": ["2530", "2530", None]})


def predict_table(model: Model, params: Params, table: pd.DataFrame, cautions: Sequence[str] = ()) -> pd.DataFrame:
    """Predict for the rows of `table`; see the docstring of this module for both tables.

    Args:
        cautions: what to know about the model; every row's warnings begin with it.

    Raises:
        MlflowException: a row cannot be used; the message names the row (HTTP status 400).
    """
    if not 0 < len(table) <= MAX_ROWS:
        raise _refused(f"{len(table)} rows in one request, not 1 to {MAX_ROWS}")
    missing = [name for name in ("samples", "sample_rate_hz") if name not in table]
    if missing:
        raise _refused(f"no column `{missing[0]}`: a row is samples and their rate; paths and addresses are not read")
    waveforms: list[RatedWaveform] = []
    for row, (samples, rate) in enumerate(zip(table["samples"], table["sample_rate_hz"], strict=True)):
        waveforms.append(_waveform(row, samples, rate, MAX_SAMPLES - sum(len(before) for before, _ in waveforms)))
        _check(row, *waveforms[-1], params)
    named = _units(table)
    row_is_unit = model.task.unit == "recording"
    unit_of = [f"{row}" for row in range(len(named))] if row_is_unit else named
    found = model.predict_audio(waveforms, unit_of)
    columns: dict[str, Any] = {
        "unit_id": named if row_is_unit else list(found.unit_ids), "decision": found.verdicts,
        "confidence": found.confidence,
        **{f"c_{name}": found.calibrated[:, k] for k, name in enumerate(found.classes)},
        **{f"p_{name}": found.probabilities[:, k] for k, name in enumerate(found.classes)},
        "leaning": found.top_classes,
    }
    warnings = _warnings(waveforms, unit_of, params, model.task.organ)
    return pd.DataFrame({**columns, "warnings": ["; ".join([*cautions, *warnings[unit]]) for unit in found.unit_ids],
                         "reasons": ["; ".join(reasons) for reasons in found.refer_reasons]})


def _waveform(row: int, samples: Any, rate: Any, budget: int) -> RatedWaveform:
    """One row as float32 waveform and rate in Hz; `budget` is the number of samples that may still follow."""
    low, high = sound_files.RATES_HZ
    if not isinstance(rate, (int, float, np.number)) or not low <= rate <= high or rate != int(rate):
        raise _refused(f"row {row}: `sample_rate_hz` is {_shown(rate)}, not a whole number from {low} to {high}")
    if not isinstance(samples, (list, tuple, np.ndarray)) or getattr(samples, "ndim", 1) == 0 or not len(samples):
        raise _refused(f"row {row}: `samples` is no array of numbers, or an empty one")
    if len(samples) > min(budget, sound_files.MAX_SECONDS * rate):
        raise _refused(f"row {row}: {len(samples)} samples are too many; at most {sound_files.MAX_SECONDS:.0f} s a row "
                       f"and {MAX_SAMPLES} samples a request")
    try:
        with np.errstate(over="ignore"):
            waveform = np.asarray(samples, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        raise _refused(f"row {row}: `samples` holds something that is no number") from None
    if waveform.ndim != 1 or not np.isfinite(waveform).all():
        raise _refused(f"row {row}: `samples` is not one row of finite numbers")
    if np.abs(waveform).max() > LOUDEST:
        raise _refused(f"row {row}: `samples` go beyond {LOUDEST:g}; full scale is 1")
    if detail := sound_files.outlier(np.abs(waveform)):
        raise _refused(f"row {row}: {detail} [outlier]")
    return waveform, int(rate)


def _check(row: int, waveform: Waveform, rate: int, params: Params) -> None:
    """Run the entry checks of ingest."""
    fault = entry_checks.waveform_fault(waveform, rate, params.ingest)
    if fault:
        raise _refused(f"row {row}: {fault.detail} [{fault.reason}]")


def _warnings(
    waveforms: Sequence[RatedWaveform], unit_of: Sequence[str], params: Params, organ: Organ
) -> dict[str, list[str]]:
    """Unit -> warnings about the signal of its recordings."""
    limits = params.for_organ(organ).validate_
    warnings: dict[str, list[str]] = {unit: [] for unit in unit_of}
    for unit, waveform in zip(unit_of, waveforms, strict=True):
        warnings[unit] += quality.warnings(quality.measure(*waveform), limits, organ).values()
    return warnings


def _units(table: pd.DataFrame) -> list[str]:
    """The unit of each row; a row without `unit_id` is a unit of its own."""
    named: Sequence[Any] = table["unit_id"].tolist() if "unit_id" in table else [None] * len(table)
    return [_unit(row, unit) for row, unit in enumerate(named)]


def _unit(row: int, unit: Any) -> str:
    if not pd.api.types.is_scalar(unit) or len(str(unit)) > MAX_NAME:
        raise _refused(f"row {row}: `unit_id` is no name of up to {MAX_NAME} characters")
    return f"row {row}" if pd.isna(unit) or unit == "" else str(unit)


def _shown(value: Any) -> str:
    """A value of a request, shortened for a message."""
    huge = isinstance(value, int) and value.bit_length() > 256
    return "a huge number" if huge else str(value)[:40]


def _refused(words: str) -> MlflowException:
    return MlflowException(words, error_code=INVALID_PARAMETER_VALUE)


if __name__ != "heartml.inference.serving":     # MLflow runs this file under another name
    set_model(Classifier())
