"""Worker processes: results in order, one thread each, and none outlives the process that started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from heartml.core.system.parallel import available_workers, pool


def square(number: int) -> int:
    time.sleep(0.02 * (number % 3))
    return number**2


def threads(_: int) -> int:
    import torch

    return torch.get_num_threads()


def test_results_come_in_the_order_asked() -> None:
    for workers in (1, 2):
        with pool(workers) as parallel:
            assert list(parallel.map(square, range(7))) == [n**2 for n in range(7)]


def test_a_worker_computes_on_one_thread() -> None:
    with pool(2) as parallel:
        assert set(parallel.map(threads, range(2))) == {1}


def test_no_worker_is_asked_for_is_all_cores() -> None:
    assert available_workers(3) == 3
    assert available_workers(0) == len(os.sched_getaffinity(0))


CODE = """
import os, time
from heartml.core.system.parallel import pool

def work(n):
    os.write(1, f"{os.getpid()}\\n".encode())      # at once, or the lines of two workers may mix
    time.sleep(60)

if __name__ == "__main__":
    with pool(2) as parallel:
        list(parallel.map(work, range(9)))
"""


def test_workers_die_with_a_killed_main_process(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(CODE)
    quiet = subprocess.DEVNULL
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=quiet, text=True) as main:
        workers = [int(main.stdout.readline()) for _ in range(2)]
        main.send_signal(signal.SIGKILL)
        main.stdout.read()      # ends when the last process that could write there is gone
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
