"""`heartml serve` under load, on this machine: requests a second, waiting times, memory, and what happens at overload.

    python benchmarks/server.py [NAME|FOLDER] [--seconds 10] [--requests 200] [--steady 10000]

Runs in a project, starts a server of its own on a free port of the loopback address, and ends it. Every client sends
one simulated recording after the other over a connection of its own. `--steady N` then sends N requests from two
clients and prints the server's memory on the way.
"""

import argparse
import http.client
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).parents[1]
CLIENTS = (1, 8, 64)
LONGEST_S = 900.0      # of the whole benchmark


def sound(seconds: float) -> bytes:
    """A simulated recording as a WAV file."""
    sys.path.insert(0, str(ROOT))
    from heartml.export.comparison import simulated

    [(samples, rate_hz)] = simulated(1)
    whole = np.tile(samples, 1 + int(seconds * rate_hz / len(samples)))[: int(seconds * rate_hz)]
    file = BytesIO()
    soundfile.write(file, whole, rate_hz, format="WAV", subtype="PCM_16")
    return file.getvalue()


def post(connection: http.client.HTTPConnection, body: bytes) -> int:
    """Send one recording; returns the status."""
    connection.request("POST", "/predict?name=a.wav", body, {"Content-Type": "audio/wav"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def load(port: int, clients: int, requests: int, body: bytes, until: float) -> tuple[list[float], Counter[int], float]:
    """Waiting times in s of answered requests, number of each status, and seconds in all."""
    times: list[float] = []
    statuses: Counter[int] = Counter()
    lock = threading.Lock()

    def client(own: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for _ in range(own):
            if time.monotonic() > until:
                return
            begun = time.perf_counter()
            status = post(connection, body)
            with lock:
                statuses[status] += 1
                if status == 200:
                    times.append(time.perf_counter() - begun)

    each = max(1, requests // clients)
    threads = [threading.Thread(target=client, args=(each,)) for _ in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, statuses, time.perf_counter() - begun


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--steady", type=int, default=0)
    wanted = parser.parse_args()
    body, until = sound(wanted.seconds), time.monotonic() + LONGEST_S
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from heartml.cli import main; main()"
    command = [sys.executable, "-c", code, str(ROOT), "serve", *([wanted.model] if wanted.model else []), "--port",
               str(port), "--no-page"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            _wait(port, server, until)
            print(f"Recordings of {wanted.seconds:g} s, {os.cpu_count()} cores, clients on the same machine")
            print(f"{'clients':>8}{'a second':>10}{'median, ms':>12}{'99 %, ms':>10}{'MB':>6}  statuses")
            for clients in CLIENTS:
                times, statuses, seconds = load(port, clients, wanted.requests, body, until)
                last = statistics.quantiles(times, n=100)[98] if len(times) > 1 else float("nan")
                print(f"{clients:>8}{len(times) / seconds:>10.1f}{1000 * statistics.median(times):>12.0f}"
                      f"{1000 * last:>10.0f}{memory_mb(server.pid):>6.0f}  {dict(statuses)}", flush=True)
            times, statuses, seconds = load(port, 200, 400, body, until)
            print(f"Overload, 200 clients: {dict(statuses)}, {len(times) / seconds:.1f} a second answered")
            for part in range(10 if wanted.steady else 0):
                _, statuses, _ = load(port, 2, wanted.steady // 10, body, until)
                sent = (part + 1) * wanted.steady // 10
                print(f"{sent:>8} requests: {memory_mb(server.pid):.0f} MB {dict(statuses)}", flush=True)
        finally:
            server.send_signal(signal.SIGTERM)


def _wait(port: int, server: "subprocess.Popen[bytes]", until: float) -> None:
    while time.monotonic() < until and server.poll() is None:
        try:
            http.client.HTTPConnection("127.0.0.1", port, timeout=5).request("GET", "/health")
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the server did not start: run `heartml serve` to see why")


if __name__ == "__main__":
    main()
