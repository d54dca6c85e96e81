"""Services that a platform shares, on this machine for a test: a PostgreSQL of its own, a local S3."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

BUCKET = "heartml"
_PLACES = (*sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True),
           Path("/usr/local/pgsql/bin"))


@dataclass(frozen=True)
class Database:
    """A running PostgreSQL that takes anybody from this machine."""

    port: int
    programs: Path

    def url(self, name: str, driver: str = "psycopg") -> str:
        """SQLAlchemy's address of a database, which is made where it is new."""
        psql = [self.programs / "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-Atc"]
        known = subprocess.run([*psql, "SELECT datname FROM pg_database"], capture_output=True, text=True, check=True)
        if name not in known.stdout.split():
            subprocess.run([*psql, f'CREATE DATABASE "{name}"'], capture_output=True, check=True)
        return f"postgresql+{driver}://postgres@127.0.0.1:{self.port}/{name}"

    def rows(self, name: str, query: str) -> list[list[str]]:
        """What a database answers."""
        command = [self.programs / "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", name,
                   "-AtF", "\t", "-c", query]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [line.split("\t") for line in done.stdout.splitlines()]


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def postgresql() -> Iterator[Database]:
    """A new cluster in a temporary folder; the test is left out where Debian's `postgresql` is not installed."""
    programs = next((place for place in _PLACES if (place / "initdb").is_file()), None)
    if programs is None:
        pytest.skip("left out: PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    folder, port = Path(tempfile.mkdtemp(prefix="heartml-postgresql-")), free_port()
    user = _other_user(folder)
    run = subprocess.run
    try:
        run([*user, programs / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "--no-sync"],
            check=True, capture_output=True, cwd=folder)
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        control = [*user, programs / "pg_ctl", "-D", folder / "data", "-w", "-s"]
        run([*control, "-l", folder / "log", "-o", options, "start"], check=True, cwd=folder)
        try:
            yield Database(port, programs)
        finally:
            run([*control, "-m", "immediate", "stop"], check=False, cwd=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _other_user(folder: Path) -> Sequence[str]:
    """PostgreSQL refuses to be run by root: how to run as nobody there, and the folder is nobody's."""
    if os.getuid():
        return ()
    shutil.chown(folder, "nobody", "nogroup")
    return ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")


@contextlib.contextmanager
def s3() -> Iterator[dict[str, str]]:
    """A local S3 with the bucket `BUCKET`; yields the environment that boto3, MLflow and DVC find it by."""
    with run_server(["-m", "moto.server"], "/moto-api/", dict(os.environ), None, "-H", "-p") as address:
        urllib.request.urlopen(urllib.request.Request(f"{address}/{BUCKET}", method="PUT")).close()
        yield {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
               "AWS_ENDPOINT_URL": address, "MLFLOW_S3_ENDPOINT_URL": address}


@contextlib.contextmanager
def run_server(
    arguments: Sequence[str], health: str, environment: dict[str, str], folder: Path | None,
    host: str = "--host", port: str = "--port",
) -> Iterator[str]:
    """A server of this Python on a free port, until the block ends; yields its address."""
    number = free_port()
    command = [sys.executable, *arguments, host, "127.0.0.1", port, str(number)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd=folder,
                          start_new_session=True) as process:
        try:
            _await(f"http://127.0.0.1:{number}{health}", process)
            yield f"http://127.0.0.1:{number}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def list_objects(address: str, prefix: str = "") -> list[str]:
    """Keys in the bucket, as its owner sees them."""
    import boto3

    client = boto3.client("s3", endpoint_url=address, aws_access_key_id="test", aws_secret_access_key="test",
                          region_name="us-east-1")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return sorted(entry["Key"] for page in pages for entry in page.get("Contents", ()))


def _await(address: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, f"{address}: ended with status {process.returncode}"
        assert time.monotonic() < deadline, f"{address}: nothing answers"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
