"""Checks all of `params.yaml` before a retraining starts, so that a wrong name or value does not end it hours later."""

from heartml.core import config, paths, tasks
from heartml.core.config import Params, ParamsError
from heartml.core.system.text import did_you_mean
from heartml.data import datasets
from heartml.models import encoders, heads


def read() -> Params:
    """Read `params.yaml` and check every name in it.

    Sections of encoders and heads are checked by name alone, because importing them takes seconds.

    Raises:
        ParamsError: the file cannot be used, or names an unknown data set, encoder or head.
        TaskError: there is no such task.
    """
    params = config.load()
    for name in params.tasks:
        for dataset in tasks.resolve(name).datasets if paths.DATA.exists() else ():     # may add collections
            _check_name(f"tasks: {name}: data set", dataset, _datasets())
    declared = tuple(name for name, values in params.encoder_parameters.items() if "kind" in values)
    for name in params.encoders:
        _check_name("encoders:", name, (*encoders.ENCODERS, *declared))
    for name, values in params.encoder_parameters.items():
        _check_name("encoder_parameters:", name, (*encoders.ENCODERS, *declared))
        _check_name(f"encoder_parameters.{name}.kind:", str(values.get("kind", name)), tuple(encoders.ENCODERS))
    for task in params.tasks:
        search = params.search.for_task(task)
        for name in search.heads:
            _check_name("search.heads:", name, tuple(heads.HEADS))
        for name in search.network_parameters:
            _check_name("search.network_parameters:", name, tuple(heads.HEADS))
    return params


def check_families(params: Params) -> None:
    """Check the values in the sections of encoders and networks. Imports these modules, which takes seconds.

    Raises:
        ParamsError: a key is unknown, missing or out of range; the message names it.
    """
    from heartml.models.heads.network_params import network_params

    for name in params.encoder_parameters:     # weights are needed of those that are used
        encoders.section(name, params)
    for name in params.encoders:
        encoders.spec(name, params)
    for task in params.tasks:
        search = params.search.for_task(task)
        for name in search.network_parameters:
            network_params(name, search)


def _datasets() -> tuple[str, ...]:
    return (*datasets.DATASETS, *sorted(path.stem for path in paths.COLLECTIONS.glob("*.yaml")))


def _check_name(where: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ParamsError(f"{paths.PARAMS}: {where} {name!r} is none of {', '.join(known)}.{did_you_mean(name, known)}")
