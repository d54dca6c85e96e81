"""Download a data set. In: its remote address. Out: its files in the publisher's layout.

The publisher's list of checksums names the files. A file that is present with the right checksum is not fetched again.
An incomplete one (`<name>.part`) is continued with an HTTP range. A file gets its final name only with the right
checksum. Failed requests are retried.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from heartml.core import paths
from heartml.core.system import hashing, locks
from heartml.core.system.errors import HeartMLError
from heartml.core.system.progress import track
from heartml.data.datasets import Dataset, Remote, checksums, leaves_folder

if TYPE_CHECKING:
    import httpx

CONNECTIONS = 6
ATTEMPTS = 5
WAIT_S = 1.0          # before the second attempt; doubles with each
TIMEOUT_S = 30.0


class DownloadError(HeartMLError):
    """A file could not be fetched as its publisher lists it. Files that have arrived stay for the next attempt."""


class ServerAway(DownloadError):  # noqa: N818 - reads as a state
    """In every attempt the server was unreachable, or sent other bytes than it lists. Later it may succeed."""


def fetch(source: Dataset, into: Path | None = None, mirror: str | None = None, *, wait_s: float = WAIT_S) -> Path:
    """Download a data set and return its folder. A second call fetches only what is missing.

    Args:
        source: the data set.
        into: the folder; by default `.heartml/downloads/<data set>`.
        mirror: an address with the same files, instead of the publisher's.
        wait_s: before the second attempt at a file; it doubles with each attempt.

    Raises:
        DownloadError: the data set has no address, or the server refuses a request.
        ServerAway: a file did not arrive completely in several attempts.
    """
    if not source.REMOTES:
        raise DownloadError(
            f"{source.NAME}: its publisher offers no files with checksums. Get it by hand from {source.PUBLISHER}, "
            f"then: heartml ingest {source.NAME} DIR"
        )
    remote = replace(source.REMOTES[0], address=f"{mirror.rstrip('/')}/") if mirror else source.REMOTES[0]
    folder = into or paths.STATE / "downloads" / source.NAME
    with locks.exclusive(folder / ".lock", on_wait=f"{folder}: waiting for another download"), _client() as client:
        _fetch_all(_Fetcher(client, remote.address, folder, wait_s), remote)
    return folder


def fetch_file(address: str, name: str, folder: Path, sha256: str | None, *, wait_s: float = WAIT_S) -> Path:
    """Download one file, and return it. With a checksum a second call continues, or finds that it is there.

    Args:
        address: of the folder on the server, with a slash at its end.
        wait_s: before the second attempt; it doubles with each.

    Raises:
        DownloadError, ServerAway: see `fetch`.
    """
    with locks.exclusive(folder / ".lock", on_wait=f"{folder}: waiting for another download"), _client() as client:
        _Fetcher(client, address, folder, wait_s).fetch(name, sha256)
    return folder / name


@contextmanager
def _client() -> "Iterator[httpx.Client]":
    import httpx

    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    with httpx.Client(timeout=TIMEOUT_S, limits=limits, follow_redirects=True, trust_env=True) as client:
        yield client


def _fetch_all(fetcher: "_Fetcher", remote: Remote) -> None:
    fetcher.fetch(remote.listing, None)
    sums = checksums(fetcher.folder / remote.listing)
    bad = next((name for name in sums if leaves_folder(name)), None)
    if bad is not None:
        raise DownloadError(f"{remote.address}{remote.listing}: {bad!r} leads out of the folder; nothing was fetched")
    wanted: dict[str, str | None] = {**dict.fromkeys(remote.also), **sums}
    with ThreadPoolExecutor(CONNECTIONS) as executor:
        try:
            done = executor.map(lambda item: fetcher.fetch(*item), wanted.items())
            for _ in track(done, f"downloading to {fetcher.folder}", len(wanted)):
                pass
        except BaseException:
            fetcher.stop.set()
            executor.shutdown(cancel_futures=True)
            raise


class _Fetcher:
    """Fetches single files, each in up to `ATTEMPTS` attempts."""

    def __init__(self, client: "httpx.Client", address: str, folder: Path, wait_s: float) -> None:
        self.client, self.address, self.folder, self.wait_s = client, address, folder, wait_s
        self.stop = threading.Event()

    def fetch(self, name: str, sha256: str | None) -> None:
        """Fetch one file. Without a checksum it is fetched anew each time, since nothing says that it is right."""
        target = self.folder / name
        if sha256 is not None and target.is_file() and hashing.sha256_file(target) == sha256:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        if sha256 is None:
            part.unlink(missing_ok=True)
        self._with_retries(name, lambda: self._attempt(name, part, sha256))
        part.replace(target)

    def _with_retries(self, name: str, attempt: Callable[[], None]) -> None:
        import httpx

        for number in range(1, ATTEMPTS + 1):
            try:
                return attempt()
            except (httpx.TransportError, _RetryableError) as error:
                if number == ATTEMPTS or self.stop.is_set():
                    raise ServerAway(
                        f"{self.address}{name}: {error} ({number} attempts). What has arrived is kept in "
                        f"{self.folder}; the same command goes on from there."
                    ) from None
                self.stop.wait(self.wait_s * 2 ** (number - 1))
        return None

    def _attempt(self, name: str, part: Path, sha256: str | None) -> None:
        """One request, which continues an incomplete file; the checksum decides.

        Raises:
            _RetryableError: another attempt may succeed.
            DownloadError: no attempt will.
        """
        have = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with self.client.stream("GET", self.address + name, headers=headers) as response:
            if response.status_code == 416:      # nothing beyond what is there: whole already, or not this file
                self._check(part, sha256)
                return
            self._refuse(name, response.status_code)
            with part.open("ab" if response.status_code == 206 else "wb", buffering=0) as file:
                for piece in response.iter_raw():      # as it arrives: nothing is lost in a buffer when this is killed
                    file.write(piece)
                    if self.stop.is_set():
                        raise _RetryableError("stopped")
        self._check(part, sha256)

    def _refuse(self, name: str, status: int) -> None:
        if status in (408, 425, 429) or status >= 500:
            raise _RetryableError(f"the server answers {status}")
        if status not in (200, 206):
            raise DownloadError(f"{self.address}{name}: the server answers {status}. Is the address right?")

    @staticmethod
    def _check(part: Path, sha256: str | None) -> None:
        if sha256 is not None and hashing.sha256_file(part) != sha256:
            part.unlink()
            raise _RetryableError("what arrived has another checksum than the publisher lists")


class _RetryableError(Exception):
    """This attempt failed; another may succeed."""
