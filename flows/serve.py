"""`python -m flows.serve`: Prefect, MLflow and a worker on this machine, to try them out. Ctrl-C ends all of it.

The servers store their data under `.heartml`, where `heartml retrain` stores its own, so their pages show its runs too.
They listen on the loopback address only. They end with this process, however it ends (flows/support/supervisor.py).
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
    """Start all services, register the deployments, and yield the services; end them when the block is left.

    Args:
        webhook: URL that is notified of failures and promotions.
        say: called with a line when a service has started.

    Raises:
        ServerError: a port is taken, or a service did not start.
        Busy: another process serves this folder already.
    """
    config.load()   # fails outside the root of a project
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(paths.LOCKS / "serve.lock", wait_s=0))
        except Busy as busy:
            raise Busy(f"this folder is served already ({busy})") from None
        services: list[LocalService] = []
        stack.callback(_end, services)
        _start_servers(services, prefect_port, mlflow_port, say)
        _deploy(webhook, say)
        services.append(local_services.worker())
        say(f"worker   takes runs of the pool {POOL}")
        yield services


def _start_servers(
    services: list[LocalService], prefect_port: int, mlflow_port: int, say: Callable[[str], None]
) -> None:
    """Start both at the same time, then wait until both answer."""
    tracking = local_services.tracking_server()
    local_services.check_port("--prefect-port", prefect_port)
    if not tracking:
        local_services.check_port("--mlflow-port", mlflow_port)
    local_services.set_prefect_address(prefect_port)
    services.append(local_services.prefect(prefect_port))
    if tracking:
        say(f"mlflow   {tracking} (MLFLOW_TRACKING_URI)")
    else:
        services.append(local_services.mlflow(mlflow_port))
    for service in services:
        local_services.wait_for(service)
        say(f"{service.name:8} {service.address}")


def _deploy(webhook: str | None, say: Callable[[str], None]) -> None:
    from flows import deploy  # here, because it imports Prefect, which reads its address from the environment

    deploy.deploy(webhook=webhook, block=None, say=say)


def _end(services: list[LocalService]) -> None:
    """End all. The worker is first, because its flow runs still report their end to Prefect."""
    for service in reversed(services):
        supervisor.end(service.process)


def _wait(services: list[LocalService]) -> None:
    """Wait until Ctrl-C.

    Raises:
        ServerError: one of the services has ended by itself.
    """
    while True:
        for service in services:
            if service.process.poll() is not None:
                raise ServerError(f"{service.name} has ended by itself; its output: {service.log}")
        time.sleep(0.5)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--prefect-port", default=4200, show_default=True, type=click.IntRange(1, 65535),
              help="Port of Prefect's server and pages.")
@click.option("--mlflow-port", default=5000, show_default=True, type=click.IntRange(1, 65535),
              help="Port of MLflow's server and pages.")
@click.option("--webhook", metavar="URL", help="Notify this URL of failures and promotions (JSON, by POST).")
def main(prefect_port: int, mlflow_port: int, webhook: str | None) -> None:
    """Serve this project on this machine: Prefect and MLflow with their pages, and a worker that runs flows.

    Registers the deployments of prefect.yaml, with their schedules. Only this machine can reach the pages. Ctrl-C ends
    everything, also a flow that runs; finished stages are kept. Writes the output of each service to .heartml/logs.

    Exit status 0: ended by Ctrl-C; 1: a port is taken, or a service did not start or has ended; 2: wrong usage.

    \b
    python -m flows.serve                              # or: make serve
    export PREFECT_API_URL=http://127.0.0.1:4200/api   # in another terminal
    prefect deployment run retrain/retrain-weekly --watch
    """
    with serving(prefect_port, mlflow_port, webhook=webhook, say=click.echo) as services:
        click.echo(f"In another terminal: export PREFECT_API_URL=http://{local_services.HOST}:{prefect_port}/api; "
                   "prefect deployment run retrain/retrain-weekly\nCtrl-C ends all of it.")
        _wait(services)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):   # a shell that starts this in the background has SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    sys.exit(run(main, interrupted=0))     # Ctrl-C is its normal end
