"""What this project tells Prefect beside the states of its runs, for automations and triggers to act on.

`heartml.promoted`  a version became champion              resource `heartml.model.<task>`
`heartml.drift`     the monitor passed a threshold         the same; emitted by flows/monitor.py
"""

from prefect.events import emit_event

from heartml.release.publish import ReleaseOutcome

PROMOTED, DRIFT = "heartml.promoted", "heartml.drift"
MODEL = "heartml.model."


def settled(outcome: ReleaseOutcome) -> None:
    """Tell of a promotion; of other outcomes the run's own state tells."""
    if outcome.state != "promoted":
        return
    labels = {"heartml.version": str(outcome.version), "heartml.reason": outcome.reason.removeprefix("promoted: ")}
    emit_event(PROMOTED, {"prefect.resource.id": f"{MODEL}{outcome.task}", "prefect.resource.name": outcome.task,
                          **labels})
