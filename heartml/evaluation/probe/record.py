"""MLflow runs of a probe: one for each encoder, with its scores on every task."""

from collections.abc import Mapping
from typing import Any

from heartml.evaluation.probe.summary import CHOSEN
from heartml.registry import tracking
from heartml.registry.tracking import RunRecord

EXPERIMENT = "probe"


def record(found: Mapping[str, Any]) -> list[str]:
    """Store one run for each encoder; returns their ids.

    Args:
        found: the numbers of `summary.summarise`.
    """
    client = tracking.connect()
    ids = []
    for row in found["ranks"]:
        with tracking.run(client, EXPERIMENT, row["encoder"]) as run_id:
            tracking.log(client, run_id, run_record(row["encoder"], found))
            ids.append(run_id)
    return ids


def run_record(encoder: str, found: Mapping[str, Any]) -> RunRecord:
    """Metrics of one encoder: `<task>/<metric>`, `<task>/<pooling>/<metric>`, costs, differences, the mean rank."""
    metrics: dict[str, float | None] = {}
    for task, own in found["tasks"].items():
        row = next((one for one in own["encoders"] if one["encoder"] == encoder), None)
        if row is None:
            continue
        for pooling, scores in row["scores"].items():
            place = task if pooling == CHOSEN else f"{task}/{pooling}"
            metrics |= {f"{place}/{name}": value["value"] for name, value in scores.items()}
        metrics |= {f"{task}/{name}": value for name, value in row["cost"].items()}
        for against in ("against_logspec", "against_random", "against_first"):
            for name, difference in (row.get(against) or {}).items():
                metrics |= {f"{task}/{against}/{name}_{end}": difference[end] for end in ("value", "low", "high")}
    rank = next(row["mean_rank"] for row in found["ranks"] if row["encoder"] == encoder)
    tags = {"heartml.probe": encoder, "mlflow.source.name": "heartml probe"}
    known = {name: float(value) for name, value in {**metrics, "mean_rank": rank}.items() if value is not None}
    return RunRecord({"tasks": ", ".join(found["tasks"])}, known, tags)
