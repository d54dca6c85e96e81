"""What DVC only logs: files that it could not copy into its cache, or out of it.

`dvc add`, and DVC's commit of a stage, go on as if such a file were in the cache, and name a version that is nowhere.
Where DVC does give up, the machine's own words, such as a full disk, stand in its log alone.
"""

import contextlib
import logging
from collections.abc import Iterator

from heartml.core.system import machine_errors
from heartml.core.system.errors import HeartMLError

_LOGGERS = {"dvc_data": logging.WARNING, "dvc_objects": logging.WARNING, "dvc.repo.checkout": logging.DEBUG}


class NotCopied(HeartMLError):  # noqa: N818 - reads as what is the case
    """DVC went on without files that it could not copy; the message says why it could not copy the first."""


class _Ear(logging.Handler):
    """Keeps the errors that are logged, and passes on what else is said."""

    def __init__(self, others: list[logging.Handler]) -> None:
        super().__init__()
        self.others, self.heard = others, list[BaseException]()

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error:
            self.heard.append(error)
        for handler in () if error else self.others:
            if record.levelno >= handler.level:
                handler.handle(record)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Raise what DVC logs in this block; the machine's fault before all else, also before what DVC itself raises.

    Raises:
        NotCopied: DVC went on without a file, for another reason.
    """
    with contextlib.ExitStack() as stack:
        ears = [stack.enter_context(_listening(name, level)) for name, level in _LOGGERS.items()]
        try:
            yield
        except Exception as error:
            machine = _machine(ears)
            if machine:
                raise machine from error
            raise
    heard = [error for ear in ears for error in ear.heard]
    if heard:
        raise _machine(ears) or NotCopied(f"DVC could not copy a file: {heard[0]}. Run it again")


def _machine(ears: list[_Ear]) -> BaseException | None:
    return next((error for ear in ears for error in ear.heard if machine_errors.in_words(error)), None)


@contextlib.contextmanager
def _listening(name: str, level: int) -> Iterator[_Ear]:
    logger = logging.getLogger(name)
    former = logger.handlers, logger.level, logger.propagate
    ear = _Ear(logger.handlers)
    logger.handlers, logger.propagate = [ear], False
    logger.setLevel(level)
    try:
        yield ear
    finally:
        logger.handlers, logger.propagate = former[0], former[2]
        logger.setLevel(former[1])
