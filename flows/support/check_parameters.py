"""The parameters of a whole run: every name and every value in them is checked before anything runs for minutes."""

from heartml.core import config, paths, tasks
from heartml.core.config import Params, ParamsError
from heartml.core.system.text import did_you_mean
from heartml.data import datasets
from heartml.models import encoders, heads


def read() -> Params:
    """All of `params.yaml`, without an import that takes seconds: sections of families are checked by name alone.

    Raises:
        ParamsError: it cannot be used, or names an encoder or a head that there is not.
        TaskError: there is no such task.
    """
    params = config.load()
    for name in params.tasks:
        for dataset in tasks.resolve(name).datasets if paths.DATA.exists() else ():     # which may name more of them
            _check_name(f"tasks: {name}: data set", dataset, _datasets())
    for name in params.encoders:
        _check_name("encoders:", name, tuple(encoders.ENCODERS))
    for name in params.encoder_parameters:
        _check_name("encoder_parameters:", name, tuple(encoders.ENCODERS))
    for task in params.tasks:
        search = params.search.of(task)
        for name in search.heads:
            _check_name("search.heads:", name, tuple(heads.HEADS))
        for name in search.network_parameters:
            _check_name("search.network_parameters:", name, tuple(heads.HEADS))
    return params


def check_families(params: Params) -> None:
    """Check the sections that encoders and networks declare themselves; imports them, which takes seconds.

    Raises:
        ParamsError: a key is unknown, missing or out of range; the message names it.
    """
    from heartml.models.heads.network_params import network_params

    for name in params.encoder_parameters:
        encoders.spec(name, params)
    for task in params.tasks:
        search = params.search.of(task)
        for name in search.network_parameters:
            network_params(name, search)


def _datasets() -> tuple[str, ...]:
    return (*datasets.DATASETS, *sorted(path.stem for path in paths.COLLECTIONS.glob("*.yaml")))


def _check_name(where: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ParamsError(f"{paths.PARAMS}: {where} {name!r} is none of {', '.join(known)}.{did_you_mean(name, known)}")
