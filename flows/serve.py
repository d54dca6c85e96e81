"""`python -m flows.serve`: Prefect, MLflow and a worker on this machine, for a look. Ctrl-C ends all of it.

The servers keep what they know where `heartml retrain` keeps it, under `.heartml`; so the pages show its runs too.
They listen on the loopback only, and live no longer than this process, however that ends (flows/kept.py).
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click

from flows import kept, server
from heartml.cli import QUIET
from heartml.core import config, paths
from heartml.core.errors import HeartMLError
from heartml.core.files import Busy, exclusive

LOGS = paths.STATE / "logs"
HOST = "127.0.0.1"
_STARTUP_S = 180.0   # on a machine that does ten other things
_SERVER_GRACE_S, _WORKER_GRACE_S = 3.0, 20.0   # a flow that is ended says so to its server first
_UNDER = {
    "PREFECT_UI_ENABLED": "true",
    # a slot of a deployment's concurrency limit is lent: where the lease is only in memory, a killed server never
    # gets it back, and no later run of that deployment starts
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}


@dataclass(frozen=True)
class Part:
    """One process of those that are served: what it is, where it answers, where its output is."""

    name: str
    process: "subprocess.Popen[bytes]"
    address: str

    @property
    def log(self) -> str:
        """Path of its output."""
        return _log(self.name)


def _log(name: str) -> str:
    return str(LOGS / f"serve-{name}.log")


@contextlib.contextmanager
def serving(
    prefect_port: int, mlflow_port: int, *, webhook: str | None, say: Callable[[str], None]
) -> Iterator[list[Part]]:
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
        _refuse_taken("--prefect-port", prefect_port)
        tracking = _tracking_server()
        if not tracking:
            _refuse_taken("--mlflow-port", mlflow_port)
        LOGS.mkdir(parents=True, exist_ok=True)
        parts: list[Part] = []
        stack.callback(_end, parts)
        os.environ |= _environment(prefect_port)
        parts.append(_prefect(prefect_port))
        if not tracking:
            parts.append(_mlflow(mlflow_port))
        for part in parts:
            _await(part)
            say(f"{part.name:8} {part.address}")
        if tracking:
            say(f"mlflow   {tracking} (MLFLOW_TRACKING_URI)")
        _deploy(webhook, say)
        parts.append(_worker())
        say(f"worker   takes runs of the pool {POOL}")
        yield parts


POOL = "heartml"


def _environment(port: int) -> dict[str, str]:
    """For Prefect in this process and all below it."""
    return {"PREFECT_HOME": os.environ.get("PREFECT_HOME", str(server.HOME.resolve())),
            "PREFECT_API_URL": f"http://{HOST}:{port}/api", "PREFECT_UI_URL": f"http://{HOST}:{port}"}


def _refuse_taken(option: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise server.ServerError(f"port {port} cannot be had ({error.strerror}). Another server? "
                                     f"`{option} NUMBER` takes another one") from None


def _tracking_server() -> str:
    """The tracking server that is in use already, if it is one."""
    named = os.environ.get("MLFLOW_TRACKING_URI", "")
    return named if named.startswith(("http://", "https://")) else ""


def _prefect(port: int) -> Part:
    command = ["-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", HOST,
               "--port", str(port), "--log-level", "warning"]   # what `prefect server start` runs
    host = {"PREFECT_SERVER_API_HOST": HOST, "PREFECT_SERVER_API_PORT": str(port), "PREFECT__SERVER_FINAL": "1"}
    process = kept.start(command, log=_log("prefect"), grace_s=_SERVER_GRACE_S,
                         **{**_UNDER, **host, **{n: os.environ[n] for n in _UNDER if n in os.environ}})
    return Part("prefect", process, f"http://{HOST}:{port}")


def _mlflow(port: int) -> Part:
    from heartml import store, tracking

    tracking.connect()   # the schema is made once, under a lock
    command = ["-m", "mlflow", "server", "--backend-store-uri", store.address(), "--host", HOST,
               "--port", str(port), "--workers", "1", "--default-artifact-root", str(tracking.STORED_FILES.resolve())]
    process = kept.start(command, log=_log("mlflow"), grace_s=_SERVER_GRACE_S,
                         MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    return Part("mlflow", process, f"http://{HOST}:{port}")


def _worker() -> Part:
    command = ["-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", "serve"]
    process = kept.start(command, log=_log("worker"), grace_s=_WORKER_GRACE_S)
    return Part("worker", process, "")


def _await(part: Part) -> None:
    deadline = time.monotonic() + _STARTUP_S
    path = "/api/health" if part.name == "prefect" else "/health"
    while time.monotonic() < deadline and part.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{part.address}{path}", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    raise server.ServerError(f"{part.name} did not start; its output: {part.log}")


def _deploy(webhook: str | None, say: Callable[[str], None]) -> None:
    from flows import deploy  # imports Prefect, which reads its address from the environment then

    deploy.deploy(webhook=webhook, block=None, say=say)


def _end(parts: list[Part]) -> None:
    """The worker first: its flow runs tell Prefect that they end."""
    for part in reversed(parts):
        kept.end(part.process)


def _wait(parts: list[Part]) -> None:
    """Return at Ctrl-C.

    Raises:
        ServerError: one of the parts has ended by itself.
    """
    while True:
        for part in parts:
            if part.process.poll() is not None:
                raise server.ServerError(f"{part.name} has ended by itself; its output: {part.log}")
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
    with serving(prefect_port, mlflow_port, webhook=webhook, say=click.echo) as parts:
        click.echo(f"In another terminal: export PREFECT_API_URL=http://{HOST}:{prefect_port}/api; "
                   "prefect deployment run retrain/weekly\nCtrl-C ends all of it.")
        _wait(parts)


def _run() -> int:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for number in (signal.SIGINT, signal.SIGTERM):   # also where a shell started this in the background, SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        main(standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        return 0     # the way in which it is meant to end
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except HeartMLError as error:
        click.echo(f"heartml: {error}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_run())
