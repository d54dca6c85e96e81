"""Check in seconds whether a server answers at an address, because its own client may try for minutes."""

import http.client
import urllib.error
import urllib.request

TIMEOUT_S = 10
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
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=TIMEOUT_S) as answer:
            answered = answer.read(len(expected))
    except urllib.error.HTTPError as error:
        if error.code not in _WHO_ASKS:
            raise ServerNotFound(str(error)) from error
        return
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ServerNotFound(str(error)) from error
    if answered != expected:
        raise ServerNotFound("something else does")
