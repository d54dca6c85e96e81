"""Runs below the run of a registered version: one for each trial, fit and encoder behind it.

In: what each child run is to say. Out: nested runs (`mlflow.parentRunId`) of the same experiment. They say how a
version came about, and nothing reads them: lineage, audit and signature are about the parent run.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heartml.core.system import processes
from heartml.registry.mlflow_keys import valid_key
from heartml.registry.tracking import batches

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT = "mlflow.parentRunId"
KIND = "heartml.kind"                # trial, network fit or encoder


@dataclass(frozen=True)
class ChildRun:
    """One nested run, before it is stored.

    Attributes:
        kind: what it is about: `trial`, `network fit`, `encoder`.
        metrics: name -> values, one after the other; a metric without steps has one value.
        curves: name -> steps of a training, and the value after each.
        children: runs below this one.
    """

    name: str
    kind: str
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Sequence[float]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    children: Sequence["ChildRun"] = ()


def log(client: "MlflowClient", run_id: str, children: Sequence[ChildRun]) -> int:
    """Store runs below the run `run_id`, each with three calls; returns how many there are."""
    experiment = str(client.get_run(run_id).info.experiment_id)
    return sum(_log(client, experiment, run_id, child) for child in children)


def _log(client: "MlflowClient", experiment: str, parent: str, child: ChildRun) -> int:
    from mlflow.entities import Metric, Param

    tags = {PARENT: parent, KIND: child.kind, "heartml.process": processes.own_name(),
            "mlflow.source.name": "heartml retrain", "mlflow.source.type": "JOB", **child.tags}
    run_id = client.create_run(experiment, tags=tags, run_name=child.name).info.run_id
    now = int(time.time() * 1000)
    metrics = [Metric(valid_key(name), value, now, step)
               for name, values in child.metrics.items() for step, value in enumerate(values)]
    metrics += [Metric(valid_key(name), value, now, step)
                for name, points in child.curves.items() for step, value in points]
    params = [Param(valid_key(name), value[:6000]) for name, value in child.params.items()]
    for some_metrics, some_params in batches(metrics, params):
        client.log_batch(run_id, metrics=some_metrics, params=some_params)
    below = sum(_log(client, experiment, run_id, one) for one in child.children)
    client.set_terminated(run_id, "FINISHED")
    return 1 + below
