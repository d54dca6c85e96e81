"""Names of flow runs that say what the run is about: `score incoming, 2026-11-30 01:00`."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

_MOST = 80      # characters of a parameter


def run_name(flow: str, parameter: str | None = None, words: Callable[[], str] | None = None) -> Callable[[], str]:
    """For `@flow(flow_run_name=...)`: the flow, what it is about, and when it starts (UTC).

    Args:
        flow: name of the flow.
        parameter: the flow's parameter that says what it is about.
        words: says so where no parameter does.
    """
    def name() -> str:
        from prefect.runtime import flow_run

        given: dict[str, Any] = flow_run.parameters or {}
        about = _text(given.get(parameter)) if parameter else words() if words else ""
        return f"{' '.join(filter(None, (flow, about)))}, {datetime.now(UTC):%Y-%m-%d %H:%M}"

    return name


def _text(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")
    return text if len(text) <= _MOST else f"{text[:_MOST]}..."
