"""The services that `python -m flows.serve` starts: Prefect's server, MLflow's server and a worker.

Each runs under a supervisor (flows/support/supervisor.py), which ends it together with this process.
"""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

from flows.support import supervisor
from flows.support.private_server import POOL, ServerError, keep_history_here
from heartml.core import paths
from heartml.core.system import machine_errors
from heartml.registry import addresses, mlflow_store, tracking

HOST = "127.0.0.1"
_LOGS = paths.STATE / "logs"
_STARTUP_S = 180.0   # long, for a machine that is busy with other work
_SERVER_GRACE_S, _WORKER_GRACE_S = 3.0, 20.0   # a flow that is ended still reports that to its server
_LEASES = "prefect.server.concurrency.lease_storage.filesystem"
_SETTINGS = {
    "PREFECT_UI_ENABLED": "true",
    # A run leases a slot of its deployment's concurrency limit. Where leases are only in memory, those of a killed
    # server are never given back, and no later run of that deployment starts.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": _LEASES,
}   # the environment takes precedence


@dataclass(frozen=True)
class LocalService:
    """A running service: its name, its process and its address (empty for the worker)."""

    name: str
    process: "subprocess.Popen[bytes]"
    address: str

    @property
    def log(self) -> str:
        """Path of the file with its output."""
        return _log(self.name)


def _log(name: str) -> str:
    return str(_LOGS / f"serve-{name}.log")


def set_prefect_address(port: int) -> None:
    """Name the server in the environment of this process and its children."""
    keep_history_here()
    os.environ["PREFECT_API_URL"] = f"http://{HOST}:{port}/api"
    os.environ["PREFECT_UI_URL"] = f"http://{HOST}:{port}"


def prefect(port: int) -> LocalService:
    """Start Prefect's server with its pages, scheduler and automations."""
    command = ["-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", HOST,
               "--port", str(port), "--log-level", "warning"]   # what `prefect server start` runs
    settings = {name: os.environ.get(name, value) for name, value in _SETTINGS.items()}
    settings |= {"PREFECT_SERVER_API_HOST": HOST, "PREFECT_SERVER_API_PORT": str(port), "PREFECT__SERVER_FINAL": "1"}
    return _started("prefect", command, f"http://{HOST}:{port}", _SERVER_GRACE_S, **settings)


def mlflow(port: int) -> LocalService:
    """Start MLflow's server over the tracking store in use."""
    tracking.connect()   # makes the schema, under a lock
    command = ["-m", "mlflow", "server", "--backend-store-uri", mlflow_store.tracking_uri(),
               "--host", HOST, "--port", str(port),
               "--workers", "1", "--default-artifact-root", addresses.of_folder(tracking.STORED_FILES)]
    return _started("mlflow", command, f"http://{HOST}:{port}", _SERVER_GRACE_S,
                    MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")


def worker() -> LocalService:
    """Start a worker of the pool."""
    command = ["-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", "serve"]
    return _started("worker", command, "", _WORKER_GRACE_S)


def _started(name: str, command: list[str], address: str, grace_s: float, **environment: str) -> LocalService:
    _LOGS.mkdir(parents=True, exist_ok=True)
    return LocalService(name, supervisor.start(command, log=_log(name), grace_s=grace_s, **environment), address)


def tracking_server() -> str:
    """Address of the tracking server that MLFLOW_TRACKING_URI names; empty where it names none."""
    named = os.environ.get("MLFLOW_TRACKING_URI", "")
    return named if named.startswith(("http://", "https://")) else ""


def check_port(option: str, port: int) -> None:
    """Check, before anything starts, that a port is free.

    Raises:
        ServerError: the port is in use; the message names the option for another port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ServerError(f"port {port} cannot be had ({error.strerror}). Another server? "
                              f"`{option} NUMBER` takes another one") from None


def wait_for(service: LocalService) -> None:
    """Wait until a server answers.

    Raises:
        ServerError: it has ended, or has not answered after three minutes.
    """
    deadline = time.monotonic() + _STARTUP_S
    path = "/api/health" if service.name == "prefect" else "/health"
    while time.monotonic() < deadline and service.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{service.address}{path}", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    raise ServerError(machine_errors.explain_unwritable(_LOGS) or f"{service.name} did not start; "
                      f"its output: {service.log}")
