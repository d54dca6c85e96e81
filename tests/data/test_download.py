"""Downloads: a real HTTP server that fails in every way, and files that are right or not there."""

import hashlib
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from support import publisher_files
from support.workspaces import Workspace

from heartml.data.datasets import circor, pascal
from heartml.data.ingest.download import DownloadError, fetch


@dataclass
class Server:
    """A publisher's server over a folder, with the faults that real ones have.

    Attributes:
        ranges: whether it honours `Range`.
        cut: path -> bytes after which the connection is dropped, once.
        answers: path -> HTTP statuses that it gives before it serves the file.
        wrong: path -> bytes served instead, once.
        slow_s: pause after every 4 KiB.
        sent: path -> bytes sent in all; `asked`: (path, Range header).
    """

    folder: Path
    ranges: bool = True
    cut: dict[str, int] = field(default_factory=dict)
    answers: dict[str, list[int]] = field(default_factory=dict)
    wrong: dict[str, bytes] = field(default_factory=dict)
    slow_s: float = 0.0
    sent: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""


def handler_for(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path.removeprefix("/files/")
            wanted = self.headers.get("Range", "")
            server.asked.append((name, wanted))
            path = server.folder / name
            if server.answers.get(name):
                return self.answer(server.answers[name].pop(0), b"not now")
            if not path.is_file():
                return self.answer(404, b"no such file")
            data = server.wrong.pop(name, None) or path.read_bytes()
            start = int(re.findall(r"\d+", wanted)[0]) if wanted and server.ranges else 0
            if start >= len(data) > 0:
                return self.answer(416, b"")
            return self.answer(206 if start else 200, data[start:], name, f"bytes {start}-{len(data) - 1}/{len(data)}")

        def answer(self, status: int, body: bytes, name: str = "", of: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if status == 206:
                self.send_header("Content-Range", of)
            self.end_headers()
            whole = len(body)
            body = body[: server.cut.pop(name, whole)]
            for at in range(0, len(body), 4096):
                self.wfile.write(body[at : at + 4096])
                server.sent[name] = server.sent.get(name, 0) + len(body[at : at + 4096])
                time.sleep(server.slow_s)
            self.close_connection = len(body) < whole

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients are killed here; that is no error of the server."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    publisher = Server(publisher_files.circor(tmp_path / "publisher"))
    sums = publisher.folder / "SHA256SUMS.txt"
    sums.write_text("".join(line for line in sums.read_text().splitlines(keepends=True) if "99999" not in line))
    with Quiet(("127.0.0.1", 0), handler_for(publisher)) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        publisher.address = f"http://127.0.0.1:{http.server_port}/files"
        yield publisher
        http.shutdown()


def get(server: Server, into: Path) -> Path:
    return fetch(circor, into, server.address, wait_s=0.01)


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


AUDIO = "training_data/24_AV.wav"


def test_a_download_is_what_the_publisher_offers(server: Server, tmp_path: Path) -> None:
    assert contents(get(server, tmp_path / "here")) == contents(server.folder)


def test_a_second_download_asks_only_for_what_carries_no_checksum(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path / "here")
    server.asked.clear()
    get(server, tmp_path / "here")
    assert {name for name, _ in server.asked} == {"SHA256SUMS.txt", "training_data.csv", "RECORDS"}


def test_a_dropped_connection_is_continued_where_it_broke(server: Server, tmp_path: Path) -> None:
    size = (server.folder / AUDIO).stat().st_size
    server.cut[AUDIO] = 5000
    get(server, tmp_path / "here")
    assert (AUDIO, "bytes=5000-") in server.asked
    assert server.sent[AUDIO] == size
    assert contents(tmp_path / "here") == contents(server.folder)


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cut = False, {AUDIO: 5000}
    get(server, tmp_path / "here")
    assert contents(tmp_path / "here") == contents(server.folder)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_away_for_a_while_is_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    server.answers = {"SHA256SUMS.txt": [status], AUDIO: [status, status]}
    assert contents(get(server, tmp_path / "here")) == contents(server.folder)


def test_wrong_bytes_are_thrown_away_and_fetched_again(server: Server, tmp_path: Path) -> None:
    server.wrong[AUDIO] = b"an error page with status 200"
    assert contents(get(server, tmp_path / "here")) == contents(server.folder)


def test_wrong_bytes_for_ever_are_an_error_and_never_take_the_name(server: Server, tmp_path: Path) -> None:
    (server.folder / AUDIO).write_bytes(b"other bytes")
    with pytest.raises(DownloadError, match=r"24_AV\.wav: what arrived has another checksum .*5 attempts"):
        get(server, tmp_path / "here")
    assert not (tmp_path / "here" / AUDIO).exists()


def test_a_part_longer_than_the_file_is_not_kept(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "here" / f"{AUDIO}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(10**6))
    assert contents(get(server, tmp_path / "here")) == contents(server.folder)


def test_a_damaged_file_is_fetched_again(server: Server, tmp_path: Path) -> None:
    target = get(server, tmp_path / "here") / AUDIO
    target.write_bytes(target.read_bytes()[:-2])
    get(server, tmp_path / "here")
    assert target.read_bytes() == (server.folder / AUDIO).read_bytes()


def test_a_wrong_address_is_told_at_once(server: Server, tmp_path: Path) -> None:
    (server.folder / "SHA256SUMS.txt").unlink()
    with pytest.raises(DownloadError, match=r"404\. Is the address right"):
        get(server, tmp_path / "here")
    assert len(server.asked) == 1


def test_nobody_at_the_address_is_told_plainly(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"SHA256SUMS\.txt: .*5 attempts.*goes on from there"):
        fetch(circor, tmp_path / "here", "http://127.0.0.1:9/files", wait_s=0.001)


def test_a_listing_that_leads_out_of_the_folder_fetches_nothing(server: Server, tmp_path: Path) -> None:
    with (server.folder / "SHA256SUMS.txt").open("a") as file:
        file.write(f"{hashlib.sha256(b'x').hexdigest()} ../../escaped.txt\n")
    with pytest.raises(DownloadError, match="leads out of the folder"):
        get(server, tmp_path / "here")
    assert {name for name, _ in server.asked} == {"SHA256SUMS.txt"}


def test_a_data_set_without_an_address_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"by hand from http://www\.peterjbentley\.com"):
        fetch(pascal, tmp_path)


def test_a_killed_download_goes_on_where_it_was(server: Server, workspace: Workspace) -> None:
    server.slow_s = 0.05
    command = ("ingest", "circor", "--download", "--mirror", server.address)
    process = workspace.start(*command)
    downloads = workspace / ".heartml" / "downloads" / "circor"
    while not any(p.stat().st_size for p in downloads.rglob("*.wav.part")) and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (workspace / "data").exists()
    whole, sent = set(downloads.rglob("*.wav")), sum(server.sent.values())
    assert len(whole) < 12
    server.slow_s = 0.0
    server.asked.clear()
    workspace.run(*command)
    again = {name for name, _ in server.asked}
    assert not again & {p.relative_to(downloads).as_posix() for p in whole}
    assert any(wanted for _, wanted in server.asked), "a part was continued"
    assert sum(server.sent.values()) - sent < sum(p.stat().st_size for p in server.folder.rglob("*") if p.is_file())
    assert contents(downloads) == contents(server.folder)
    assert len(pd.read_parquet(workspace / "data" / "recordings.parquet")) == 12


def test_the_download_goes_where_it_is_told(server: Server, workspace: Workspace, tmp_path: Path) -> None:
    workspace.run("ingest", "circor", "--download", "--into", tmp_path / "mine", HEARTML_MIRROR=server.address)
    assert contents(tmp_path / "mine") == contents(server.folder)
