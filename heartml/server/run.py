"""Start the server, say where it listens, and end it on Ctrl-C or a signal."""

import logging
import os
import socket
import sys
from typing import NamedTuple

from heartml import export
from heartml.core.system import parallel
from heartml.core.system.errors import HeartMLError

_LOCAL = ("127.0.0.1", "localhost", "[::1]")


class Place(NamedTuple):
    """Where the server listens; port 0 means any free one."""

    host: str
    port: int


class CannotListen(HeartMLError):  # noqa: N818 - names what is the case
    """The port is taken, or the address is not one of this machine."""


def run(wanted: str | None, task: str | None, place: Place, threads: int | None, waiting: int, *,
        with_page: bool) -> None:
    """Serve until the process is told to end.

    Args:
        wanted, task: see `heartml.inference.model_lookup.locate`.
        threads, waiting: see `heartml.server.app.Limits`.

    Raises:
        ExportRefused: a library is missing.
        CannotListen: see there.
    """
    export.check_libraries(("spox", "onnx", "onnxscript", "onnxruntime", "python_multipart"))
    import uvicorn

    from heartml.server.app import Limits, make
    from heartml.server.served import Holder

    parallel.single_thread()
    listening = _listening(place)
    with listening:
        holder = Holder(wanted, task, with_page=with_page)
        local = place.host in ("127.0.0.1", "localhost", "::1")
        app = make(holder, Limits(threads, waiting), hosts=_LOCAL if local else ("*",))
        name = f"[{place.host}]" if ":" in place.host else place.host
        address = f"http://{name}:{listening.getsockname()[1]}"
        served = holder.served
        for words in (f"answers with {served.located.description}",
                      *(f"caution: {line}" for line in served.located.cautions),
                      f"{address}/ the page" if served.page else f"no page: {served.no_page}",
                      f"{address}/predict takes sound, {address}/docs describes it; Ctrl-C ends it"):
            print(f"serve: {words}", file=sys.stderr, flush=True)
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=10,
                                               backlog=256, server_header=False, limit_concurrency=1000,
                                               timeout_graceful_shutdown=5))
        server.run(sockets=[listening])


def _listening(place: Place) -> socket.socket:
    if not place.host:
        raise CannotListen("--host is empty: 127.0.0.1 is this machine alone, 0.0.0.0 every address")
    try:
        family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
        return socket.create_server(place, family=family, backlog=256)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise CannotListen(f"{place.host}:{place.port}: {why}. Name another with --port") from None
