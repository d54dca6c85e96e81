"""`python -m flows.deploy`: register this project with a Prefect server. A second call changes nothing.

It makes the work pool, the deployments of prefect.yaml with their schedules and triggers, and two automations: one
notifies of a run that failed, the other of a promotion. The receiver is a block on the server, because its address is
often a secret.
"""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import click
from prefect.automations import AutomationCore
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events.actions import ActionTypes, CallWebhook, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker
from pydantic import SecretStr

from flows import events
from flows.support import private_server
from flows.support.private_server import POOL
from heartml.core import config
from heartml.core.command import run
from heartml.core.system.errors import HeartMLError

TAG = "heartml"   # on every deployment of prefect.yaml, and so on its runs
WEBHOOK = "webhook/heartml"
ENDED_BADLY = frozenset({"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut",
                         "prefect.flow-run.Late"})
FORMER = ("retrain/weekly", "ingest/on-demand", "score/nightly", "monitor/daily", "audit/weekly")     # names until 0.1
_FAILED = ('{"text": {{ ("HeartML " ~ flow.name ~ " " ~ flow_run.name ~ ": " ~ flow_run.state.name ~ ". "'
           ' ~ (flow_run.state.message or "")) | tojson }}, "event": {{ event.event | tojson }},'
           ' "flow": {{ flow.name | tojson }}, "flow_run": {{ flow_run.name | tojson }},'
           ' "state": {{ flow_run.state.name | tojson }}, "page": {{ flow_run | ui_url | tojson }}}')
_PROMOTED = ('{"text": {{ ("HeartML promoted " ~ event.resource["prefect.resource.name"] ~ " version "'
             ' ~ event.resource["heartml.version"] ~ ": " ~ event.resource["heartml.reason"]) | tojson }},'
             ' "event": {{ event.event | tojson }}, "model": {{ event.resource["prefect.resource.name"] | tojson }},'
             ' "version": {{ event.resource["heartml.version"] | tojson }}}')


class DeployError(HeartMLError):
    """The server refused the project; the message holds the server's own words."""


def deploy(*, webhook: str | None, block: str | None, say: Callable[[str], None]) -> None:
    """Bring the configured server up to date with prefect.yaml. A second call changes nothing.

    Args:
        webhook: URL that is notified of failures and promotions; stored on the server as the block `webhook/heartml`.
        block: an existing block that is used instead, `TYPE/NAME`: a webhook or one of Prefect's notification blocks.
        say: called with each line of output.

    Raises:
        DeployError: the server refuses, or there is no such block.
    """
    with get_client(sync_client=True) as client:
        _make_pool(client)
        done = subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"], text=True,
                              capture_output=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise DeployError(f"`prefect deploy --all` says: {(done.stderr or done.stdout).strip()[-2000:]}")
        _remove_former(client)
        if webhook:
            Webhook(url=SecretStr(webhook)).save(WEBHOOK.partition("/")[2], overwrite=True)
        receiver = _make_automations(client, block or WEBHOOK, required=bool(block or webhook))
    say(f"deployed: everything in prefect.yaml, to the pool {POOL}")
    say(f"notifications of failures and promotions go to {receiver}" if receiver else
        "no notifications of failures and promotions: python -m flows.deploy --webhook URL, or --block TYPE/NAME")


def _make_pool(client: SyncPrefectClient) -> None:
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))


def _remove_former(client: SyncPrefectClient) -> None:
    """Remove deployments under names of a former release; they would run beside those that replace them."""
    for name in FORMER:
        with contextlib.suppress(ObjectNotFound):
            found = client.read_deployment_by_name(name)
            if TAG in found.tags:
                client.delete_deployment(found.id)


def _make_automations(client: SyncPrefectClient, block: str, *, required: bool) -> str:
    """Make the two automations that notify `block`.

    Returns:
        The block's name; empty where the server has no such block and it is not required.
    """
    kind, _, name = block.partition("/")
    try:
        document = client.read_block_document_by_name(name, kind)
    except ObjectNotFound:
        if required:
            raise DeployError(f"there is no block {block} on the server; `prefect block ls` lists them") from None
        return ""
    _replace(client, "heartml: a run ended badly or is late", EventTrigger(
        expect=set(ENDED_BADLY), match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification({"prefect.resource.id": f"prefect.tag.{TAG}",
                                             "prefect.resource.role": "tag"}),
        posture=Posture.Reactive, threshold=1, within=timedelta(0)), _action(kind, document.id, _FAILED))
    _replace(client, "heartml: a model was promoted", EventTrigger(
        expect={events.PROMOTED}, match=ResourceSpecification({"prefect.resource.id": f"{events.MODEL}*"}),
        posture=Posture.Reactive, threshold=1, within=timedelta(0)), _action(kind, document.id, _PROMOTED))
    return block


def _action(kind: str, block: UUID, text: str) -> ActionTypes:
    if kind == Webhook.get_block_type_slug():
        return CallWebhook(block_document_id=block, payload=text)
    return SendNotification(block_document_id=block, subject="HeartML", body=text)


def _replace(client: SyncPrefectClient, name: str, trigger: EventTrigger, action: ActionTypes) -> None:
    wanted = AutomationCore(name=name, trigger=trigger, actions=[action])
    found = client.read_automations_by_name(name)
    if found:
        client.update_automation(found[0].id, wanted)
    else:
        client.create_automation(wanted)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--webhook", metavar="URL", help="Notify this URL of failures and promotions (JSON, by POST).")
@click.option("--block", metavar="TYPE/NAME", help="Notify through this block of the server, e.g. slack-webhook/night.")
def main(webhook: str | None, block: str | None) -> None:
    """Register this project with the Prefect server that PREFECT_API_URL names. A second call changes nothing.

    Reads prefect.yaml. Writes to the server: the work pool `heartml`, the deployments with their schedules and
    triggers, and two automations that notify of a failed run and of a promotion.

    Exit status 0: registered; 1: the server refused or does not answer; 2: wrong usage.

    \b
    python -m flows.deploy --webhook https://chat.example.org/hooks/123
    prefect worker start --pool heartml
    """
    if webhook and block:
        raise click.UsageError("--webhook or --block, not both")
    config.load()
    if not private_server.configured():
        raise private_server.ServerError("no Prefect server is named: export PREFECT_API_URL=http://HOST:4200/api, or "
                                 "try everything on this machine with `make serve`")
    private_server.check()
    deploy(webhook=webhook, block=block, say=click.echo)


if __name__ == "__main__":
    sys.exit(run(main))
