"""The registered model behind MLflow's pyfunc: a table of samples in, a table of decisions out. No pickle anywhere.

In: `samples` (array of numbers, full scale is 1), `sample_rate_hz`, and optionally `unit_id`: rows of one patient share
it; without it each row is a unit of its own. Where the task's unit is the recording, every row is, and `unit_id` is but
its name. Out, one row a unit in the order of arrival: `unit_id`, `decision` (a class, or `refer`),
`confidence` (calibrated probability of `leaning`), `c_<class>` (calibrated), `p_<class>` (what the decision rule looks
at), `leaning` (the class, also where it is to refer), `warnings`. MLflow runs this file when it loads the model;
importing it does nothing.
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
from heartml.models.fitted_model import Model
from heartml.registry import signing
from heartml.registry.signing import keys

MAX_ROWS = 256                   # one request: a ward round, not a data set
MAX_SAMPLES = 30_000_000         # of all rows together: an hour at 8 kHz, 120 MB
MAX_NAME = 200
LOUDEST = 2.0**31                # an integer's full scale, should a caller send those; squares still fit into a float32
Sound = tuple[Waveform, int]


class Classifier(PythonModel):
    """A fitted ensemble (artifact `model`) with the parameters of its entry checks (artifact `params`)."""

    def load_context(self, context: Any) -> None:
        """Read the ensemble once, when the server starts.

        Raises:
            signing.Refused: these are not the files that were signed, or nobody trusted here (HEARTML_TRUSTED_KEYS)
                signed them. The code that says so has come with the model: verify before you serve (heartml verify).
        """
        parallel.single_thread()
        stored = next(p for p in Path(context.artifacts["model"]).resolve().parents if (p / "MLmodel").is_file())
        if os.environ.get("HEARTML_SIGNING") != "off":
            signing.verify(stored, keys.trusted(), f"the served model {stored.name}")
        self.model = Model.load(Path(context.artifacts["model"]))
        self.params = config.load(Path(context.artifacts["params"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answers to `model_input`, as the module says."""
        return respond(self.model, self.params, model_input)


def answer(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    """What a server of the ensemble in `folder` answers to `table`."""
    return respond(Model.load(folder), config.load(), table)


def example() -> pd.DataFrame:
    """What a caller sends: one patient heard at two places, and a recording that belongs to nobody else."""
    time_s = np.arange(2 * 4000) / 4000
    beats = np.sin(2 * np.pi * 50 * time_s) * np.sin(2 * np.pi * 0.75 * time_s) ** 20
    samples = [np.round(level * beats, 4).tolist() for level in (0.5, 0.3, 0.4)]
    return pd.DataFrame({"samples": samples, "sample_rate_hz": [4000] * 3, "unit_id": ["2530", "2530", None]})


def respond(model: Model, params: Params, table: pd.DataFrame) -> pd.DataFrame:
    """What `model` says of `table`; see the module for both.

    Raises:
        MlflowException: a row cannot be used, and which (HTTP status 400).
    """
    if not 0 < len(table) <= MAX_ROWS:
        raise _refused(f"{len(table)} rows in one request, not 1 to {MAX_ROWS}")
    missing = [name for name in ("samples", "sample_rate_hz") if name not in table]
    if missing:
        raise _refused(f"no column `{missing[0]}`: a row is samples and their rate; paths and addresses are not read")
    sounds: list[Sound] = []
    for row, (samples, rate) in enumerate(zip(table["samples"], table["sample_rate_hz"], strict=True)):
        sounds.append(_sound(row, samples, rate, MAX_SAMPLES - sum(len(waveform) for waveform, _ in sounds)))
        _admit(row, *sounds[-1], params)
    named = _units(table)
    alone = model.task.unit == "recording"
    unit_of = [f"{row}" for row in range(len(named))] if alone else named
    said = model.predict_audio(sounds, unit_of)
    columns: dict[str, Any] = {
        "unit_id": named if alone else list(said.unit_ids), "decision": said.verdicts,
        "confidence": said.confidence,
        **{f"c_{name}": said.calibrated[:, k] for k, name in enumerate(said.classes)},
        **{f"p_{name}": said.probabilities[:, k] for k, name in enumerate(said.classes)},
        "leaning": said.top_classes,
    }
    words = _warnings(sounds, unit_of, params)
    return pd.DataFrame({**columns, "warnings": ["; ".join(words[unit]) for unit in said.unit_ids]})


def _sound(row: int, samples: Any, rate: Any, budget: int) -> Sound:
    """One row as float32 waveform and rate."""
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
    return waveform, int(rate)


def _admit(row: int, waveform: Waveform, rate: int, params: Params) -> None:
    """The entry checks of ingest."""
    fault = entry_checks.waveform_fault(waveform, rate, params.ingest)
    if fault:
        raise _refused(f"row {row}: {fault.detail} [{fault.reason}]")


def _warnings(sounds: Sequence[Sound], unit_of: Sequence[str], params: Params) -> dict[str, list[str]]:
    """Unit -> what is wrong with its recordings' signal."""
    words: dict[str, list[str]] = {unit: [] for unit in unit_of}
    for unit, sound in zip(unit_of, sounds, strict=True):
        words[unit] += quality.warnings(quality.measure(*sound), params.validate_)
    return words


def _units(table: pd.DataFrame) -> list[str]:
    """The unit of each row; a row that names none is its own."""
    named: Sequence[Any] = table["unit_id"].tolist() if "unit_id" in table else [None] * len(table)
    return [_unit(row, unit) for row, unit in enumerate(named)]


def _unit(row: int, unit: Any) -> str:
    if not pd.api.types.is_scalar(unit) or len(str(unit)) > MAX_NAME:
        raise _refused(f"row {row}: `unit_id` is no name of up to {MAX_NAME} characters")
    return f"row {row}" if pd.isna(unit) or unit == "" else str(unit)


def _shown(value: Any) -> str:
    """A number or word that somebody sent, in few letters."""
    huge = isinstance(value, int) and value.bit_length() > 256
    return "a huge number" if huge else str(value)[:40]


def _refused(words: str) -> MlflowException:
    return MlflowException(words, error_code=INVALID_PARAMETER_VALUE)


if __name__ != "heartml.inference.serving":     # MLflow runs the file under a name of its own, and asks for the model
    set_model(Classifier())
