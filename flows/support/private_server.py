"""A Prefect server for one command: `python -m flows.support.private_server PORT PARENT`.

It dies with the process PARENT, however that ends; Prefect's own ephemeral server would outlive a killed flow. The
history of runs is kept under `.heartml/prefect`.
"""

import atexit
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from heartml.core import paths
from heartml.core.system import health, machine_errors
from heartml.core.system.errors import HeartMLError
from heartml.core.system.processes import collect_garbage_less_often, die_with_parent
from heartml.registry import addresses

HOME = paths.STATE / "prefect"
POOL = "heartml"   # the work pool that prefect.yaml deploys to and a worker takes runs from
LOG = paths.STATE / "logs" / "prefect-server.log"
_STARTUP_S = 180   # long, for a machine that is busy with other work
_STARTS = 5
_DATABASE = ("PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL",
             "PREFECT_SERVER_DATABASE_DRIVER")     # each of them names another database
_HEALTHY = b"true"    # a Prefect server's reply when it is asked for its health


class ServerError(HeartMLError):
    """There is no Prefect server where there should be one; the message says what to do."""


def address() -> str:
    """URL of the user's Prefect server: from the environment, else from the active profile; empty where none is set."""
    if named := os.environ.get("PREFECT_API_URL"):
        return named
    profiles = Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect")) / "profiles.toml"
    if not profiles.exists():
        return ""
    import tomllib

    content = tomllib.loads(profiles.read_text(encoding="utf-8"))
    active = os.environ.get("PREFECT_PROFILE", content.get("active", ""))
    return str(content.get("profiles", {}).get(active, {}).get("PREFECT_API_URL", ""))


def configured() -> bool:
    """Whether the user has configured a Prefect server."""
    return bool(address())


def check() -> None:
    """Find out within seconds whether the configured server answers.

    Prefect itself tries for minutes and then prints a page of traceback.

    Raises:
        ServerError: nothing answers at its address.
    """
    named = address()
    if not named or "/workspaces/" in named:     # Prefect Cloud answers only with a key
        return
    try:
        health.check(named, _HEALTHY)
    except health.ServerNotFound as error:
        suggestion = _suggestion(named)
        unset = "unset PREFECT_API_URL" if os.environ.get("PREFECT_API_URL") else "choose another Prefect profile"
        raise ServerError(f"PREFECT_API_URL={named}: no Prefect server answers ({error}).{suggestion} Start it, or "
                          f"{unset} to work without one") from None


def _suggestion(named: str) -> str:
    """The address with what is left out most often: the scheme, and the `/api` at its end."""
    scheme, found, rest = named.rpartition("://")
    full = f"{scheme or 'http'}://{rest.rstrip('/').removesuffix('/api')}/api"
    return "" if full == named.rstrip("/") or (found and scheme not in ("http", "https")) else f" Did you mean {full}?"


def keep_history_here() -> None:
    """Name Prefect's folder and its database in the environment, unless the caller has named them.

    Prefect pastes the folder's path into the database's address. So it is told the address where the path has a
    character that means something there.
    """
    home = os.environ.setdefault("PREFECT_HOME", str(HOME.resolve()))
    if addresses.needs_escape(home) and not any(name in os.environ for name in _DATABASE):
        os.environ[_DATABASE[0]] = addresses.of_sqlite(Path(home).expanduser() / "prefect.db", "aiosqlite")


def start() -> None:
    """Start a server for this process alone.

    Its address is written into the environment, which Prefect reads when it is imported. The server ends with this
    process, after Prefect's own exit handlers have sent their last messages. When the server dies earlier, it is
    started again with the same history.

    Raises:
        ServerError: the server does not answer after three minutes.
    """
    port = _free_port()
    keep_history_here()
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")   # where core/command.py has not run
    for handler in ("CONSOLE", "DEBUG"):   # the command prints its own lines
        os.environ.setdefault(f"PREFECT_LOGGING_HANDLERS_{handler}_LEVEL", "CRITICAL")
    server = _Server(port)
    atexit.register(server.end)
    threading.Thread(target=server.run_until_ended, daemon=True).start()
    import prefect  # noqa: F401 - takes about as long as the server's start; both at the same time

    _await(server)


class _Server:
    """The server's process. The thread that waits for it also starts it, because the process dies with that thread."""

    def __init__(self, port: int) -> None:
        self.starts = 0
        self._port, self._ended = port, False
        self._process: subprocess.Popen[bytes] | None = None

    def run_until_ended(self) -> None:
        """Start the server, and start it again when it has died, at most five times in all."""
        LOG.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "flows.support.private_server", str(self._port), str(os.getpid())]
        while not self._ended and self.starts < _STARTS:
            self.starts += 1
            with LOG.open("a", encoding="utf-8") as log:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                                 stderr=subprocess.STDOUT, start_new_session=True)
            self._process.wait()

    def end(self) -> None:
        """Kill the server. SQLite survives that, and an orderly end takes seconds."""
        self._ended = True
        if self._process:
            self._process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(server: _Server) -> None:
    deadline = time.monotonic() + _STARTUP_S
    while time.monotonic() < deadline and server.starts < _STARTS:
        try:
            with urllib.request.urlopen(f"{os.environ['PREFECT_API_URL']}/health", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    raise ServerError(machine_errors.explain_unwritable(LOG.parent) or "the private Prefect server did not start; its "
                      f"output: {LOG}")


def main(port: int, parent: int) -> None:
    """Serve Prefect's API without its pages and without most of its background services."""
    die_with_parent(parent)
    collect_garbage_less_often()
    os.environ |= {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    del os.environ["PREFECT_API_URL"]
    import uvicorn

    uvicorn.run("prefect.server.api.server:create_app", factory=True, host="127.0.0.1", port=port,
                log_level="error", lifespan="on")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
