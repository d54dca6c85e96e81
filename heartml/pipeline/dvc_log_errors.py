"""Errors that DVC only logs: files that it could not copy into its cache or out of it.

After such an error, `dvc add` and DVC's commit of a stage go on as if the file were in the cache. They then record a
version that is stored nowhere. Where DVC does stop, the cause, such as a full disk, is only in its log.
"""

import contextlib
import logging
from collections.abc import Iterator

from heartml.core.system import machine_errors
from heartml.core.system.errors import HeartMLError

_LOGGERS = {"dvc_data": logging.WARNING, "dvc_objects": logging.WARNING, "dvc.repo.checkout": logging.DEBUG}


class NotCopied(HeartMLError):  # noqa: N818 - reads as what happened
    """DVC went on without files that it could not copy; the message says why it could not copy the first one."""


class _ErrorCollector(logging.Handler):
    """Collects the errors that are logged, and passes on all other messages."""

    def __init__(self, others: list[logging.Handler]) -> None:
        super().__init__()
        self.others, self.errors = others, list[BaseException]()

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error:
            self.errors.append(error)
        for handler in () if error else self.others:
            if record.levelno >= handler.level:
                handler.handle(record)


@contextlib.contextmanager
def raise_logged_errors() -> Iterator[None]:
    """Raise errors that DVC logs in this block. An error of the machine comes first, also before an error of DVC.

    Raises:
        Exception: the logged error, if the machine caused it (see `machine_errors`).
        NotCopied: DVC went on without a file for another reason.
    """
    with contextlib.ExitStack() as stack:
        collectors = [stack.enter_context(_collecting(name, level)) for name, level in _LOGGERS.items()]
        try:
            yield
        except Exception as error:
            machine_error = _machine_error(collectors)
            if machine_error:
                raise machine_error from error
            raise
    errors = [error for collector in collectors for error in collector.errors]
    if errors:
        raise _machine_error(collectors) or NotCopied(f"DVC could not copy a file: {errors[0]}. Run it again")


def _machine_error(collectors: list[_ErrorCollector]) -> BaseException | None:
    errors = (error for collector in collectors for error in collector.errors)
    return next((error for error in errors if machine_errors.explain(error)), None)


@contextlib.contextmanager
def _collecting(name: str, level: int) -> Iterator[_ErrorCollector]:
    logger = logging.getLogger(name)
    former = logger.handlers, logger.level, logger.propagate
    collector = _ErrorCollector(logger.handlers)
    logger.handlers, logger.propagate = [collector], False
    logger.setLevel(level)
    try:
        yield collector
    finally:
        logger.handlers, logger.propagate = former[0], former[2]
        logger.setLevel(former[1])
