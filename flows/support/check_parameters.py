"""The parameters of a whole run: read, and every name in them known, before anything runs for minutes."""

from heartml.core import config, paths, tasks
from heartml.core.config import Params, ParamsError
from heartml.core.system.text import did_you_mean
from heartml.data import datasets
from heartml.models import encoders, heads


def read() -> Params:
    """All of `params.yaml`.

    Raises:
        ParamsError: it cannot be used, or names an encoder or a head that there is not.
        TaskError: there is no such task.
    """
    params = config.load()
    for name in params.tasks:
        for dataset in tasks.resolve(name).datasets if paths.DATA.exists() else ():     # which may name more of them
            _known(f"tasks: {name}: data set", dataset, _datasets())
    for name in params.encoders:
        _known("encoders:", name, tuple(encoders.ENCODERS))
    for task in params.tasks:
        for name in params.search.of(task).heads:
            _known("search.heads:", name, tuple(heads.HEADS))
    return params


def _datasets() -> tuple[str, ...]:
    return (*datasets.DATASETS, *sorted(path.stem for path in paths.COLLECTIONS.glob("*.yaml")))


def _known(where: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ParamsError(f"{paths.PARAMS}: {where} {name!r} is none of {', '.join(known)}.{did_you_mean(name, known)}")
