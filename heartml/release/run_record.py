"""What the run of a version says in MLflow's columns: params, metrics and tags.

In: the outputs of the stages, `params.yaml`, the lineage. Out: a `RunRecord`. The whole of `params.yaml` is a file of
the run; its columns have what this task used, and what won the search.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from heartml.core import paths
from heartml.core.config import PerTask
from heartml.core.system.files import canonical_json, read_json
from heartml.lineage import capture
from heartml.registry.tracking import RunRecord

if TYPE_CHECKING:
    from heartml.core.config import Params

_OF_NO_MODEL = {"tasks", "simulate", "protocol", "predict", "signing", "audit", "monitor", "flow", "report"}
_PARTS = ("held_out", "out_of_fold")


def record(
    name: str, key: str, facts: Mapping[str, Any], params: "Params", used: Mapping[str, Mapping[str, float]]
) -> RunRecord:
    """Params, metrics and tags of the run of one task's model.

    Args:
        key: the content key of the version.
        facts: its lineage, see `capture.gather`.
        used: stage that ran -> name of a metric -> value, see `publish.publish`.
    """
    code, passed = facts["code"], capture.validation()[0]
    tags = {
        "heartml.key": key, "heartml.task": name, "heartml.data": facts["data"]["hash"],
        "heartml.dvc_lock": facts["dvc_lock_sha256"] or "", "heartml.validation": "passed" if passed else "failed",
        "heartml.code_dirty": str(code["dirty"]).lower(), "mlflow.source.git.commit": code["commit"] or "",
        **{f"heartml.sha256.{what}": digest for what, digest in facts["outputs_sha256"].items()},
    }
    won = winner(read_json(paths.model(name) / "model.json"))
    metrics = {**scores(read_json(paths.evaluation(name) / "metrics.json")), **_beside_the_evaluation(name)}
    metrics |= {f"{what}/{stage.replace('@', '/')}": value for stage, values in used.items()
                for what, value in values.items()}
    return RunRecord({**dict(flat("", used_params(name, params))), **won}, metrics, tags)


def used_params(name: str, params: "Params") -> dict[str, Any]:
    """The sections of `params.yaml` that a model depends on, with the values of this task, as JSON values.

    Encoders and heads that are not switched on are left out.
    """
    values = params.model_dump(mode="json", by_alias=True, exclude=_OF_NO_MODEL)
    for section in values:
        own = getattr(params, "validate_" if section == "validate" else section)
        if isinstance(own, PerTask):
            values[section] = own.for_task(name).model_dump(mode="json", exclude={"tasks"})
    search, encoders = values["search"], set(params.encoders)
    heads = set(search["heads"])
    values["encoder_parameters"] = _only(values["encoder_parameters"], encoders)
    search["poolings"] = _only(search["poolings"], {*encoders, "*"})
    for networks in ("network_trials", "network_parameters"):
        search[networks] = _only(search[networks], heads)
    return values


def _only(values: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in names}


def flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """Nested values as pairs of a dotted name and a text.

    >>> list(flat("", {"split": {"folds": 5}, "heads": "all"}))
    [('split.folds', '5'), ('heads', 'all')]
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flat(f"{prefix}{key}.", item)
    else:
        yield prefix[:-1], value if isinstance(value, str) else canonical_json(value).strip()


def winner(model: Mapping[str, Any]) -> dict[str, str]:
    """What won the search: members with weight and hyperparameters, the decision rule and the calibration, as params.

    Args:
        model: `model.json`; a view's weight counts for each of its trials.
    """
    members = model.get("members", [])
    weights: dict[int, float] = {}
    for view in model.get("readings", []):
        for trial in view["trials"]:
            weights[trial] = weights.get(trial, 0.0) + view["weight"]
    found = {"winner.members": str(len(members))} if members else {}
    for number, member in enumerate(members, start=1):
        own = {key: member.get(key) for key in ("trial", "encoder", "pooling", "head", "level")}
        own |= {"weight": round(weights.get(member["trial"], 0.0), 6), **member.get("numbers", {})}
        found |= dict(flat(f"winner.{number}.", own))
    for part in ("rule", "calibration", "refer_below"):
        if part in model:
            found |= dict(flat(f"winner.{part}.", model[part]))
    return found


def scores(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The evaluation as metrics; baselines have their old name, `floor/<baseline>/<metric>`.

    `<part>/<metric>` has an interval beside it (`_low`, `_high`). Classes, subgroups and sources have values alone:
    `class/<part>/<class>/<metric>`, `subgroup/<part>/<column>/<value>/<metric>`, `source/<part>/<source>/<metric>`.
    """
    tables = {part: evaluation[part] for part in _PARTS}
    tables |= {f"floor/{baseline}": numbers for baseline, numbers in evaluation["floors"].items()}
    found = {f"{table}/{metric}{'' if end == 'value' else '_' + end}": value
             for table, numbers in tables.items() for metric, ends in numbers.items()
             for end, value in ends.items() if value is not None}
    for part in _PARTS:
        groups = {f"class/{part}": evaluation.get("per_class", {}).get(part, {}),
                  f"source/{part}": evaluation.get("per_source", {}).get(part, {})}
        groups |= {f"subgroup/{part}/{column}": of
                   for column, of in evaluation.get("subgroups", {}).get(part, {}).items()}
        for prefix, of in groups.items():
            for value, numbers in of.items():
                found |= _values(f"{prefix}/{value}", numbers)
        referred = evaluation.get("referral", {}).get(part, {}).get("referred")
        found |= _values(f"referral/{part}", {"referred": referred})
    return found


def _beside_the_evaluation(name: str) -> dict[str, float]:
    """Metrics of each robustness condition and of the heart states, where those stages have run."""
    found: dict[str, float] = {}
    if paths.robustness(name).exists():
        for condition in read_json(paths.robustness(name))["conditions"]:
            prefix = f"robustness/{condition['kind']}/{condition['level']:g}"
            found |= _values(prefix, {**condition["scores"], "change": condition["change"]})
    measures = paths.heart_states(name) / "measures.json"
    if measures.exists():
        for model, numbers in read_json(measures).items():
            if isinstance(numbers, Mapping):
                found |= {f"heart_states/{model}/{key}": float(value) for key, value in numbers.items()
                          if isinstance(value, int | float)}
    return found


def _values(prefix: str, numbers: Mapping[str, Any]) -> dict[str, float]:
    """The values, without their intervals, of those entries that are numbers with an interval."""
    return {f"{prefix}/{metric}": ends["value"] for metric, ends in numbers.items()
            if isinstance(ends, Mapping) and ends.get("value") is not None}
