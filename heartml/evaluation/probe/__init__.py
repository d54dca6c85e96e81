"""A linear probe of encoders: how much of a task can be read from an encoder's frames by a logistic regression.

In: tasks whose folds are drawn, names of encoders of `params.yaml`. Each encoder is probed with every layer and pooling
on the task's own folds, out of fold; the held-out part is not used. Beside each pre-trained encoder stands the same
network with random weights, and `logspec` stands beside all. Out: scores with intervals over groups, paired
differences, costs, and over several tasks the mean rank.

Each encoder's result is stored under `.heartml/probe`, addressed by content: a probe that was stopped goes on, and one
that is done is read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heartml.core import config, folds, paths
from heartml.core.config import Params
from heartml.core.system import code_hash, files, hashing
from heartml.core.system.errors import HeartMLError
from heartml.core.task_definition import HEART, Organ
from heartml.core.tasks import resolve
from heartml.evaluation.probe import controls, linear, vectors
from heartml.evaluation.probe.linear import Probed
from heartml.models import encoders, heard
from heartml.models.encoders import EncoderSpec
from heartml.models.pooling import POOLINGS
from heartml.training import training_set
from heartml.training.search_space import poolings_of
from heartml.training.training_set import TrainingSet

REFERENCE = "logspec"
FOLDER = paths.STATE / "probe"
_CODE = ("evaluation/probe/linear.py", "evaluation/probe/vectors.py", "models/pooling.py", "models/heads/softmax.py",
         "models/heads/linear.py", "training/training_set.py")


class ProbeError(HeartMLError):
    """A task or an encoder cannot be probed; the message says what to do."""


@dataclass(frozen=True)
class Plan:
    """What is probed.

    Attributes:
        specs: name -> encoder, controls among them.
        control_of: name of an encoder -> name of its control, where it has one.
        poolings: name of an encoder -> its poolings.
        tables: task -> schema.FOLDS without the held-out part and, where that was asked for, without heard groups.
    """

    specs: Mapping[str, EncoderSpec]
    control_of: Mapping[str, str]
    poolings: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, pd.DataFrame]

    @property
    def jobs(self) -> list[tuple[str, str]]:
        """Task and encoder of every probe."""
        return [(task, name) for task in self.tables for name in self.specs]


@dataclass(frozen=True)
class ProbedEncoder:
    """One encoder on one task.

    Attributes:
        features: name of a pooling -> number of features.
    """

    task: str
    encoder: str
    probed: Probed
    features: Mapping[str, int]
    cost: vectors.Cost


def plan(tasks: Sequence[str], names: Sequence[str], params: Params, *, poolings: Sequence[str] = (),
         leave_out_heard: bool = False) -> Plan:
    """Find encoders, controls and folds.

    Args:
        names: encoders of params.yaml; `logspec` is added where it is missing.
        poolings: for every encoder; else those that `search.poolings` has for it.
        leave_out_heard: leave the groups out that any of the encoders was trained on, for all encoders alike.

    Raises:
        ProbeError: a task has no folds, or too few groups are left; an encoder has no pooling.
        HeardError: an encoder was trained on a group of a task, and `leave_out_heard` is false.
        EncoderError, ParamsError, WeightsError: see `encoders.spec`.
    """
    params = params.for_organ(_organ(tasks))
    specs: dict[str, EncoderSpec] = {}
    control_of: dict[str, str] = {}
    chosen: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys([REFERENCE, *names]):
        specs[name] = encoders.spec(name, params)
        chosen[name] = _poolings(name, poolings, params)
        if (control := controls.random_weights(specs[name], params.seed)) is not None:
            control_of[name] = _same(control, chosen[name], specs, chosen) or control.name
            specs.setdefault(control_of[name], control)
            chosen.setdefault(control_of[name], chosen[name])
    sections = [spec.to_json()["sections"][spec.kind] for spec in specs.values()]
    known = [heard.of(section) for section in sections]
    tables = {}
    for task in tasks:
        table = _table(task)
        if leave_out_heard:
            table = heard.without_heard(table, known)
        heard.refuse(task, {name: spec.to_json() for name, spec in specs.items()}, table)
        tables[task] = _usable(task, table[table["part"] != folds.TEST].reset_index(drop=True))
    return Plan(specs, control_of, chosen, tables)


def _organ(tasks: Sequence[str]) -> Organ:
    """What all the tasks are about.

    Raises:
        ProbeError: they are about different organs, for which an encoder of one name is two.
    """
    organs = sorted({resolve(task).task.organ for task in tasks})
    if len(organs) > 1:
        raise ProbeError(f"{', '.join(tasks)} are about {' and '.join(organs)}, for which `logspec` is not the same: "
                         "probe them one after the other")
    return organs[0] if organs else HEART


def _same(control: EncoderSpec, poolings: tuple[str, ...], specs: Mapping[str, EncoderSpec],
          chosen: Mapping[str, tuple[str, ...]]) -> str | None:
    """The name of an encoder with the same weights and poolings: one shape has one control."""
    return next((name for name, spec in specs.items()
                 if spec.identity() == control.identity() and chosen[name] == poolings), None)


def _poolings(name: str, asked: Sequence[str], params: Params) -> tuple[str, ...]:
    unknown = [one for one in asked if one not in POOLINGS]
    if unknown:
        raise ProbeError(f"--pooling {unknown[0]}: there are {', '.join(POOLINGS)}")
    found = tuple(asked) or poolings_of(name, params.search)
    if not found:
        raise ProbeError(f"{name}: no pooling for it in `search.poolings` of params.yaml; name some with --pooling")
    return found


def _table(task: str) -> pd.DataFrame:
    if not paths.folds(task).exists():
        raise ProbeError(f"{task}: no folds yet. Put it into `tasks` (`heartml tasks --use {task}`), then run "
                         f"`heartml validate` and `heartml split --task {task}`, or `heartml retrain`")
    return folds.load(paths.folds(task))


def _usable(task: str, table: pd.DataFrame) -> pd.DataFrame:
    """Check that every fold has units of two classes at least, once heard groups are gone."""
    if not len(table):
        raise ProbeError(f"{task}: the encoders heard every group of its folds. Probe them on another collection")
    for part, rows in table.groupby("part"):
        if rows["label"].nunique() < 2:
            raise ProbeError(f"{task}: fold {part} has fewer than two classes left. Too few groups of this task were "
                             "not heard; probe it with fewer encoders, or on another collection")
    if table["part"].nunique() <= linear.INNER_FOLDS:
        raise ProbeError(f"{task}: {table['part'].nunique()} folds are left, and {linear.INNER_FOLDS + 1} are needed")
    return table


def probe_encoder(plan: Plan, task: str, name: str) -> ProbedEncoder:
    """Probe one encoder on one task, unless its result is stored."""
    spec, table = plan.specs[name], plan.tables[task]
    recordings = pd.read_parquet(paths.RECORDINGS)
    found = training_set.build(task, table, recordings)
    file = FOLDER / f"{task}-{name}-{_key(spec, plan.poolings[name], table, found)}.safetensors"
    if not file.exists():
        own = vectors.pooled(spec, found.recording_ids, plan.poolings[name])
        probed = linear.out_of_fold(own, found)
        _write(file, ProbedEncoder(task, name, probed, vectors.describe(own), vectors.cost(spec, found.recording_ids)))
    return _read(file, task, name)


def _key(spec: EncoderSpec, poolings: Iterable[str], table: pd.DataFrame, found: TrainingSet) -> str:
    """16 hex digits over all that a result depends on."""
    values = [table.to_csv(index=False), found.recording_labels.tolist(), encoders.fingerprint(spec), list(poolings),
              code_hash.fingerprint(*_CODE)]
    return hashing.sha256(files.canonical_json(values).encode())[:16]


def _write(file: Path, found: ProbedEncoder) -> None:
    from safetensors.numpy import save

    arrays = {"priors": found.probed.priors}
    for name, probabilities in found.probed.probabilities.items():
        arrays[f"p.{name}"], arrays[f"loss.{name}"] = probabilities, found.probed.inner_losses[name]
    words = {"facts": files.canonical_json({"features": dict(found.features), "cost": asdict(found.cost)})}
    with files.replacing(file) as temporary:
        temporary.write_bytes(save({key: np.ascontiguousarray(value) for key, value in arrays.items()}, words))


def _read(file: Path, task: str, name: str) -> ProbedEncoder:
    import json

    from safetensors import safe_open
    from safetensors.numpy import load_file

    arrays = load_file(file)
    with safe_open(file, "np") as opened:
        facts = json.loads(opened.metadata()["facts"])
    poolings = [key.removeprefix("p.") for key in arrays if key.startswith("p.")]
    probed = Probed({one: arrays[f"p.{one}"] for one in facts["features"]},
                    {one: arrays[f"loss.{one}"] for one in facts["features"]}, arrays["priors"])
    assert set(poolings) == set(facts["features"])
    return ProbedEncoder(task, name, probed, facts["features"], vectors.Cost(**facts["cost"]))


def run(plan: Plan, results: Iterable[ProbedEncoder]) -> dict[str, Any]:
    """Score what was probed, see `summary.summarise`."""
    from heartml.evaluation.probe import summary

    return summary.summarise(plan.tables, plan.control_of, list(results), config.load())
