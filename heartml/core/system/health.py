"""Whether a service is where it is said to be: found out in seconds, where its client would try for minutes."""

import http.client
import urllib.error
import urllib.request

ANSWER_S = 10
_WHO_ASKS = frozenset({401, 403, 407, 429})     # it is there, and wants to know who we are, or has others to serve


class NotThere(Exception):  # noqa: N818 - reads as what happened
    """Nothing answers there, or something else does; the message says which."""


def ask(address: str, well: bytes) -> None:
    """Ask a server for `address/health`.

    Args:
        well: how its answer begins, which tells it from whatever else may listen there.

    Raises:
        NotThere: see there; the network's own error is behind it, so that a flow knows that another try can help.
    """
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=ANSWER_S) as answer:
            said = answer.read(len(well))
    except urllib.error.HTTPError as error:
        if error.code not in _WHO_ASKS:
            raise NotThere(str(error)) from error
        return
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NotThere(str(error)) from error
    if said != well:
        raise NotThere("something else does")
