"""`python -m flows.serve`: Prefect, MLflow and a worker on this machine, for a look. Ctrl-C ends all of it.

The servers keep what they know where `heartml retrain` keeps it, under `.heartml`; so the pages show its runs too.
They listen on the loopback only, and live no longer than this process, however that ends (flows/support/supervisor.py).
"""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator

import click

from flows.support import local_services, supervisor
from flows.support.local_services import LocalService
from flows.support.private_server import POOL, ServerError
from heartml.core import config, paths
from heartml.core.command import run
from heartml.core.system.locks import Busy, exclusive


@contextlib.contextmanager
def serving(
    prefect_port: int, mlflow_port: int, *, webhook: str | None, say: Callable[[str], None]
) -> Iterator[list[LocalService]]:
    """Start everything, register the deployments, yield the parts; end them all when the block is left.

    Args:
        webhook: an address that is told of failures and promotions.
        say: gets a line as each part comes up.

    Raises:
        ServerError: a port is taken, or a part did not come up.
        Busy: another one serves this folder.
    """
    config.load()   # in the root of a project, or not at all
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(paths.LOCKS / "serve.lock", wait_s=0))
        except Busy as busy:
            raise Busy(f"this folder is served already ({busy})") from None
        served: list[LocalService] = []
        stack.callback(_end, served)
        _servers(served, prefect_port, mlflow_port, say)
        _deploy(webhook, say)
        served.append(local_services.worker())
        say(f"worker   takes runs of the pool {POOL}")
        yield served


def _servers(served: list[LocalService], prefect_port: int, mlflow_port: int, say: Callable[[str], None]) -> None:
    """Start both side by side, and wait for them."""
    tracking = local_services.tracking_server()
    local_services.refuse_taken("--prefect-port", prefect_port)
    if not tracking:
        local_services.refuse_taken("--mlflow-port", mlflow_port)
    local_services.name_prefect(prefect_port)
    served.append(local_services.prefect(prefect_port))
    if tracking:
        say(f"mlflow   {tracking} (MLFLOW_TRACKING_URI)")
    else:
        served.append(local_services.mlflow(mlflow_port))
    for part in served:
        local_services.wait_for(part)
        say(f"{part.name:8} {part.address}")


def _deploy(webhook: str | None, say: Callable[[str], None]) -> None:
    from flows import deploy  # imports Prefect, which reads its address from the environment then

    deploy.deploy(webhook=webhook, block=None, say=say)


def _end(served: list[LocalService]) -> None:
    """The worker first: its flow runs tell Prefect that they end."""
    for part in reversed(served):
        supervisor.end(part.process)


def _wait(served: list[LocalService]) -> None:
    """Until Ctrl-C.

    Raises:
        ServerError: one of the parts has ended by itself.
    """
    while True:
        for part in served:
            if part.process.poll() is not None:
                raise ServerError(f"{part.name} has ended by itself; its output: {part.log}")
        time.sleep(0.5)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--prefect-port", default=4200, show_default=True, type=click.IntRange(1, 65535))
@click.option("--mlflow-port", default=5000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--webhook", metavar="URL", help="Tell this address of failures and promotions (JSON, by POST).")
def main(prefect_port: int, mlflow_port: int, webhook: str | None) -> None:
    """Serve this project on this machine for a look: Prefect and MLflow with their pages, and a worker.

    The deployments of prefect.yaml are registered, schedules included. Only this machine can reach the pages. Ctrl-C
    ends everything, a flow that runs as well; nothing that is done is lost. The output of each part: .heartml/logs.

    \b
    python -m flows.serve                              # or: make serve
    export PREFECT_API_URL=http://127.0.0.1:4200/api   # in another terminal
    prefect deployment run retrain/weekly --watch
    """
    with serving(prefect_port, mlflow_port, webhook=webhook, say=click.echo) as served:
        click.echo(f"In another terminal: export PREFECT_API_URL=http://{local_services.HOST}:{prefect_port}/api; "
                   "prefect deployment run retrain/weekly\nCtrl-C ends all of it.")
        _wait(served)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):   # also where a shell started this in the background, SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    sys.exit(run(main, interrupted=0))     # Ctrl-C is the way in which it is meant to end
