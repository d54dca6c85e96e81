"""Check in seconds whether a server answers at an address, because its own client may try for minutes."""

import http.client
import threading
import urllib.error
import urllib.request

TIMEOUT_S = 5       # for all of it: finding the host, connecting and reading
_WHO_ASKS = frozenset({401, 403, 407, 429})     # it is there, but wants a login or is busy


class ServerNotFound(Exception):  # noqa: N818 - reads as what happened
    """Nothing answers at the address, or something else does; the message says which."""


def check(address: str, expected: bytes) -> None:
    """Ask a server for `address/health`. A server that refuses us (401, 403, 407, 429) is there, and passes.

    Args:
        expected: how the answer must begin; it tells the server from others that may listen there.

    Raises:
        ServerNotFound: no such answer. Its cause is the network's own error, by which a flow knows that another try can
            help.
    """
    ended: list[bytes | BaseException] = []
    asking = threading.Thread(target=_ask, args=(address, len(expected), ended), daemon=True)
    asking.start()
    asking.join(TIMEOUT_S)      # a host's name may be looked up for longer, whatever the timeout of the connection
    found = ended[0] if ended else TimeoutError(f"no reply within {TIMEOUT_S} s")
    if isinstance(found, urllib.error.HTTPError) and found.code in _WHO_ASKS:
        return
    if isinstance(found, OSError | ValueError | http.client.HTTPException):
        raise ServerNotFound(str(found)) from found
    if isinstance(found, BaseException):
        raise found
    if found != expected:
        raise ServerNotFound("something else does")


def _ask(address: str, length: int, ended: list[bytes | BaseException]) -> None:
    """Append the first bytes of the reply, or the error."""
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=TIMEOUT_S) as answer:
            ended.append(answer.read(length))
    except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
        ended.append(error)
