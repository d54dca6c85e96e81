"""What `python -m flows.serve` starts:

Prefect's server, MLflow's, a worker; each of them kept (flows/support/supervisor.py).
"""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

from flows.support import supervisor
from flows.support.private_server import HOME, POOL, ServerError
from heartml.core import paths
from heartml.registry import mlflow_store, tracking

HOST = "127.0.0.1"
_LOGS = paths.STATE / "logs"
_STARTUP_S = 180.0   # on a machine that does ten other things
_SERVER_GRACE_S, _WORKER_GRACE_S = 3.0, 20.0   # a flow that is ended says so to its server first
_LEASES = "prefect.server.concurrency.lease_storage.filesystem"
_SETTINGS = {
    "PREFECT_UI_ENABLED": "true",
    # a slot of a deployment's concurrency limit is lent: where the lease is only in memory, a killed server never
    # gets it back, and no later run of that deployment starts
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": _LEASES,
}   # unless the environment says otherwise


@dataclass(frozen=True)
class LocalService:
    """One of them: what it is, where it answers, where its output is."""

    name: str
    process: "subprocess.Popen[bytes]"
    address: str

    @property
    def log(self) -> str:
        """Path of its output."""
        return _log(self.name)


def _log(name: str) -> str:
    return str(_LOGS / f"serve-{name}.log")


def name_prefect(port: int) -> None:
    """Name the server in the environment of this process and all below it."""
    os.environ.setdefault("PREFECT_HOME", str(HOME.resolve()))
    os.environ["PREFECT_API_URL"] = f"http://{HOST}:{port}/api"
    os.environ["PREFECT_UI_URL"] = f"http://{HOST}:{port}"


def prefect(port: int) -> LocalService:
    """Prefect's server with pages, scheduler and automations."""
    command = ["-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", HOST,
               "--port", str(port), "--log-level", "warning"]   # what `prefect server start` runs
    settings = {name: os.environ.get(name, value) for name, value in _SETTINGS.items()}
    settings |= {"PREFECT_SERVER_API_HOST": HOST, "PREFECT_SERVER_API_PORT": str(port), "PREFECT__SERVER_FINAL": "1"}
    return _started("prefect", command, f"http://{HOST}:{port}", _SERVER_GRACE_S, **settings)


def mlflow(port: int) -> LocalService:
    """MLflow's pages over the tracking store in use."""
    tracking.connect()   # the schema is made once, under a lock
    command = ["-m", "mlflow", "server", "--backend-store-uri", mlflow_store.address(),
               "--host", HOST, "--port", str(port),
               "--workers", "1", "--default-artifact-root", str(tracking.STORED_FILES.resolve())]
    return _started("mlflow", command, f"http://{HOST}:{port}", _SERVER_GRACE_S,
                    MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")


def worker() -> LocalService:
    """A worker of the pool."""
    command = ["-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", "serve"]
    return _started("worker", command, "", _WORKER_GRACE_S)


def _started(name: str, command: list[str], address: str, grace_s: float, **environment: str) -> LocalService:
    _LOGS.mkdir(parents=True, exist_ok=True)
    return LocalService(name, supervisor.start(command, log=_log(name), grace_s=grace_s, **environment), address)


def tracking_server() -> str:
    """The tracking server that is in use already; empty where it is none."""
    named = os.environ.get("MLFLOW_TRACKING_URI", "")
    return named if named.startswith(("http://", "https://")) else ""


def refuse_taken(option: str, port: int) -> None:
    """Find out before anything starts.

    Raises:
        ServerError: somebody listens on the port; names the option that takes another one.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ServerError(f"port {port} cannot be had ({error.strerror}). Another server? "
                              f"`{option} NUMBER` takes another one") from None


def wait_for(part: LocalService) -> None:
    """Wait until it answers.

    Raises:
        ServerError: it ended, or takes too long.
    """
    deadline = time.monotonic() + _STARTUP_S
    path = "/api/health" if part.name == "prefect" else "/health"
    while time.monotonic() < deadline and part.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{part.address}{path}", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    raise ServerError(f"{part.name} did not start; its output: {part.log}")
