"""The events that this project emits to Prefect, for automations and triggers to act on.

`heartml.promoted`  a version became champion              resource `heartml.model.<task>`
`heartml.drift`     the monitor found a drift              the same resource; emitted by flows/monitor.py
"""

from prefect.events import emit_event

from heartml.release.publish import ReleaseOutcome

PROMOTED, DRIFT = "heartml.promoted", "heartml.drift"
MODEL = "heartml.model."


def emit_promotion(outcome: ReleaseOutcome) -> None:
    """Emit `heartml.promoted` if the outcome is a promotion. Other outcomes are in the message of the run's state."""
    if outcome.state != "promoted":
        return
    labels = {"heartml.version": str(outcome.version), "heartml.reason": outcome.reason.removeprefix("promoted: ")}
    emit_event(PROMOTED, {"prefect.resource.id": f"{MODEL}{outcome.task}", "prefect.resource.name": outcome.task,
                          **labels})
