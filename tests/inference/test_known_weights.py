"""`heartml weights fetch`: from a server, continued after an interruption, pinned by hash, licence accepted first."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import tiny_checkpoints
from support.workspaces import ROOT

from heartml.cli import cli
from heartml.core.system.hashing import sha256_file
from heartml.data.ingest.download import DownloadError
from heartml.inference import known_weights
from heartml.inference import weights as tracked
from heartml.inference.known_weights import KNOWN, FetchError, KnownWeights


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str], Path]]:
    """A server of `served/`: its address, the `Range` of each request, the folder. The working folder is a project."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    served, asked = tmp_path / "served", []
    served.mkdir()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Range", ""))
            file = served / self.path.lstrip("/")
            data = file.read_bytes() if file.is_file() else b""
            first = int(asked[-1].removeprefix("bytes=").rstrip("-") or 0)
            self.send_response(404 if not data else 206 if first else 200)
            self.send_header("Content-Length", str(len(data) - first))
            self.end_headers()
            self.wfile.write(data[first:])

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}", asked, served
    http.shutdown()
    http.server_close()


def test_an_interrupted_download_goes_on_and_is_added(
    server: tuple[str, list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, asked, served = server
    file, _ = tiny_checkpoints.byol_a(served / "byol.pth")
    monkeypatch.setitem(KNOWN, "tiny", KnownWeights("byol_a", "http://nowhere/", "byol.pth", "ours", sha256_file(file)))
    part = tmp_path / ".heartml/downloads/weights/tiny/byol.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(file.read_bytes()[:5000])
    monkeypatch.setattr(tracked, "_track", lambda folder, meta: tracked._pointer(folder).write_text(
        f"meta: {{kind: {meta['kind']}, file: {meta['file']}, sha256: {meta['sha256']}, licence: {meta['licence']}}}\n"
        f"outs:\n- {{path: {folder.name}, size: 5}}\n"))
    done = CliRunner().invoke(cli, ["weights", "fetch", "tiny", "--mirror", address], catch_exceptions=False)
    assert done.exit_code == 0
    assert asked == ["bytes=5000-"]
    assert "weights/tiny/byol.pth (0.0 MB), licence ours" in done.stdout
    assert (tmp_path / "weights/tiny/byol.pth").read_bytes() == file.read_bytes()
    known_weights.fetch("tiny", address, accepted=False)
    assert len(asked) == 1, "what is there with the right hash is not fetched again"


def test_another_file_than_the_pinned_one_is_refused(server: tuple[str, list[str], Path], tmp_path: Path) -> None:
    address, _, served = server
    (served / KNOWN["mn04_as"].file).write_bytes(b"other weights")
    with pytest.raises(DownloadError, match="another checksum than the publisher lists"):
        known_weights.fetch("mn04_as", address, accepted=False, wait_s=0.0)
    assert not list((tmp_path / ".heartml/downloads/weights/mn04_as").glob("*.pt"))
    with pytest.raises(DownloadError, match="the server answers 404"):
        known_weights.fetch("mn10_as", address, accepted=False)


def test_a_licence_has_to_be_accepted_and_an_unknown_name_is_told(server: tuple[str, list[str], Path]) -> None:
    address, asked, _ = server
    with pytest.raises(FetchError, match=r"evaluation only.* is at https.*`heartml weights fetch byol_a_d512 --acc"):
        known_weights.fetch("byol_a_d512", address, accepted=False)
    with pytest.raises(FetchError, match=r"'mn4_as': no address is known\. There are mn04_as.*Did you mean"):
        known_weights.fetch("mn4_as", address, accepted=True)
    assert not asked
    assert known_weights.find("byol_a_d512", accepted=True).kind == "byol_a"


def test_every_address_is_complete() -> None:
    for name, known in KNOWN.items():
        assert known.address.startswith("https://") and known.address.endswith("/"), name
        assert known.sha256 is None or len(known.sha256) == 64, name
