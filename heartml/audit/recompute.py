"""Checks that compute again: folds from the data version, metrics and decisions from the stored predictions.

In: the evidence about one version. Out, for each check: what was found, in words. A check raises `LinkBroken` or
`LinkMissing`; the first line of its docstring says what is expected.
"""

from io import BytesIO
from typing import TYPE_CHECKING, Any

from heartml.audit.evidence import Evidence
from heartml.audit.links import LinkBroken, LinkMissing, listed
from heartml.core.system.errors import HeartMLError

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-9
_PREDICTIONS = {"held_out": "evaluation/predictions.parquet", "out_of_fold": "out_of_fold.parquet"}


def groups(evidence: Evidence) -> str:
    """No person and no near-duplicate is on both sides of a split, and the stored predictions follow that split."""
    import pandas as pd

    from heartml.core import folds

    heard = pd.read_parquet(evidence.file("folds.parquet"))
    table = folds.labelled(heard)
    try:
        folds.check_folds(heard, _owners(evidence, heard))
    except HeartMLError as error:
        raise LinkBroken(str(error)) from None
    for part, name in _PREDICTIONS.items():
        predicted = pd.read_parquet(evidence.file(name)).set_index("unit_id")["part"]
        own = table[(table["part"] == folds.TEST) == (part == "held_out")].drop_duplicates("unit_id")
        expected = own.set_index("unit_id")["part"]
        moved = sorted({*expected.index} ^ {*predicted.index}) or sorted(
            unit for unit in expected.index if expected[unit] != predicted[unit])
        if moved:
            raise LinkBroken(f"{name} has another split than folds.parquet: unit {listed(moved)}")
    counts = {column: table[column].nunique() for column in ("recording_id", "group_id", "part")}
    besides = f"; {len(heard) - len(table)} further recordings heard" if len(heard) > len(table) else ""
    return (f"{counts['recording_id']} recordings, {counts['group_id']} groups, {counts['part'] - 1} folds and the "
            f"held-out part; none crosses{besides}")


def _owners(evidence: Evidence, table: "pd.DataFrame") -> "pd.DataFrame":
    """Patient and groups of each recording of the folds, from the data version and its validation."""
    import pandas as pd

    from heartml.lineage.dvc_objects import ObjectNotFound

    try:
        data = evidence.objects.table(evidence.objects.listing(evidence.data_md5), "recordings.parquet")
    except ObjectNotFound as gone:
        raise LinkMissing(f"recordings of data version {evidence.data_md5}: {gone}") from None
    joined = pd.read_parquet(BytesIO(evidence.file("validation/groups.parquet").read_bytes()))
    owners = data[["recording_id", "patient_id", "group_id"]].rename(columns={"group_id": "publisher_group_id"})
    owners = owners.merge(joined[["recording_id", "group_id"]].rename(columns={"group_id": "joined_group_id"}),
                          on="recording_id", how="left", validate="1:1")
    strange = sorted(set(table["recording_id"]) - set(owners["recording_id"]))
    if strange:
        raise LinkBroken(f"recordings of the folds that are not in the data version: {listed(strange)}")
    return owners


def metrics(evidence: Evidence) -> str:
    """Each metric of the run, with its interval, follows from the stored predictions; baselines are in metrics.json."""
    import pandas as pd

    from heartml.metrics.scores import LabelledPredictions, task_scores

    logged, count, wrong = evidence.run.metrics, 0, []
    params, seed = _params(evidence)
    for part, name in _PREDICTIONS.items():
        predictions = LabelledPredictions.from_table(pd.read_parquet(evidence.file(name)), evidence.task.classes)
        for metric, ends in task_scores(predictions, evidence.task, params, seed).items():
            count += len(ends)
            wrong += _differences(logged, f"{part}/{metric}", ends)
    stored = evidence.values("evaluation/metrics.json")
    for baseline, scores in stored["floors"].items():
        for metric, ends in scores.items():
            wrong += _differences(logged, f"floor/{baseline}/{metric}", ends)
    if wrong:
        raise LinkBroken(listed(wrong))
    return f"{count} numbers computed again from the stored predictions, the same within {TOLERANCE:g}"


def _differences(logged: Any, key: str, ends: Any) -> list[str]:
    found = []
    for end, value in ends.items():
        name = key if end == "value" else f"{key}_{end}"
        stored = logged.get(name)
        near = None not in (stored, value) and abs(stored - value) <= TOLERANCE * max(1, abs(value))
        found += [] if near or stored is value is None else [f"{name}: logged {stored}, computed {value}"]
    return found


def _params(evidence: Evidence) -> tuple[Any, int]:
    """The section `evaluate` and the seed that the evaluation was made with. Keys of older versions are accepted."""
    from pydantic import ValidationError

    from heartml.core.config import EvaluateParams, migrate_keys

    values = migrate_keys(evidence.values("params.yaml"))
    try:
        return EvaluateParams.model_validate(values["evaluate"]), int(values["seed"])
    except (ValidationError, KeyError) as error:
        raise LinkMissing(f"params.yaml of the run is not for this code ({error}): audit with the code of that time, "
                   f"git checkout {evidence.commit[:12]}") from None


def decisions(evidence: Evidence) -> str:
    """Stored decisions and confidences follow from the stored probabilities by the registered model's rule."""
    import numpy as np
    import pandas as pd

    from heartml.core.system.files import read_json
    from heartml.models.ensemble.calibration import Calibration
    from heartml.models.ensemble.decision_rule import Rule
    from heartml.registry import model_files

    model = read_json(model_files.ensemble_folder(evidence.stored_model) / "model.json")
    classes = evidence.task.classes
    table = pd.read_parquet(evidence.file(_PREDICTIONS["held_out"]))
    log_p = np.log(table[[f"p_{name}" for name in classes]].to_numpy(float))
    rule, scaled = Rule(np.array(model["rule"]["biases"])), model["calibration"]
    calibrated = Calibration.from_json(scaled).predict_proba(log_p)
    decided = [classes[c] for c in rule.predict(log_p)]
    off = np.abs(calibrated - table[[f"c_{name}" for name in classes]].to_numpy(float)).max(axis=1) > TOLERANCE
    wrong = [f"unit {unit}: stored {stored}, the model's rule gives {own}"
             for unit, stored, own in zip(table["unit_id"], table["decision"], decided, strict=True) if stored != own]
    wrong += [f"unit {unit}: its calibrated confidence is not the model's" for unit in table.loc[off, "unit_id"]]
    if wrong:
        raise LinkBroken(listed(wrong))
    return f"{len(table)} held-out decisions and confidences follow from their probabilities"
