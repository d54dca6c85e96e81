"""What goes wrong around a run, planted for real: disks that fill up, folders that cannot be written, clocks that jump.

    mounted_disk         a small file system of its own that fills up or turns read-only; other processes do not see it
    fork_command         a command in a process that has its imports already, to be killed or interrupted at any moment
    jumping_clock        a clock that jumps by hours and days, for every call of a process and its children
    cuttable_connection  a TCP connection that can be cut, at once or after so many bytes
    seeds                random moments that a failed test can be given again

A test that needs what this machine does not permit is left out and says so.
"""

import contextlib
import ctypes
import gc
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from support.workspaces import Done, Workspace

ROUNDS = int(os.environ.get("HEARTML_FAULT_ROUNDS", "1"))      # of each fault at a random moment
THOROUGH = ROUNDS > 1
SEED = int(os.environ.get("HEARTML_FAULT_SEED", "0")) or random.SystemRandom().randrange(10**6)
_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
_CLONE_NEWUSER, _CLONE_NEWNS = 0x10000000, 0x00020000
_GONE_S = 10.0


def seeds() -> list[int]:
    """HEARTML_FAULT_ROUNDS seeds, for `pytest.mark.parametrize`; HEARTML_FAULT_SEED names the first again."""
    return [SEED + number for number in range(ROUNDS)]


@dataclass(frozen=True)
class OnDisk(Workspace):
    """A project on a `Disk`: `root` is how this process sees it, `inside` is where its own commands see it."""

    inside: Path
    keeper: int

    @property
    def environment(self) -> dict[str, str]:
        """As any project's, with the path that counts inside."""
        return {**super().environment, "PYTHONPATH": str(self.inside), "TMPDIR": str(self.inside.parent / "tmp")}

    def command(self, *arguments: object) -> list[str]:
        """`heartml ARGUMENTS`, on the disk."""
        return self.there(*super().command(*arguments))

    def run(self, *arguments: object, check: bool = True, timeout_s: float = 900, **env: str) -> "Done":
        """Run `heartml ARGUMENTS` there, in a process of its own: a fork would see another file system."""
        return self.run_process(*arguments, check=check, timeout_s=timeout_s, **env)

    def enter(self) -> None:
        """Take this process, which must have one thread, onto the disk for good."""
        library = ctypes.CDLL(None, use_errno=True)
        for kind, flag in (("user", _CLONE_NEWUSER), ("mnt", _CLONE_NEWNS)):
            with Path(f"/proc/{self.keeper}/ns/{kind}").open("rb") as namespace:
                if library.setns(namespace.fileno(), flag):
                    raise OSError(ctypes.get_errno(), f"setns {kind}")
        os.chdir(self.inside)
        os.environ["TMPDIR"] = str(self.inside.parent / "tmp")

    def there(self, *command: object) -> list[str]:
        """Any command, on the disk."""
        return ["nsenter", "--target", str(self.keeper), "--user", "--preserve-credentials", "--mount",
                f"--wdns={self.inside}", "--", *map(str, command)]


@dataclass
class Disk:
    """A file system in memory, mounted at `at` for its keeper and what is started through it; gone with the keeper."""

    at: Path
    keeper: "subprocess.Popen[str]"
    _filled: int = 0

    @property
    def seen(self) -> Path:
        """`at` as this process sees it."""
        return Path(f"/proc/{self.keeper.pid}/root{self.at}")

    def hold(self, project: Workspace) -> OnDisk:
        """A copy of the project on this disk."""
        shutil.copytree(project.root, self.seen / "project", symlinks=True)
        (self.seen / "tmp").mkdir()
        return OnDisk(self.seen / "project", self.at / "project", self.keeper.pid)

    def take(self, project: OnDisk, to: Path) -> Workspace:
        """A copy of the project outside, to be looked at: SQLite follows links, and finds nothing behind `seen`."""
        return project.copy(to)

    def free(self) -> int:
        """Bytes that are left."""
        state = os.statvfs(self.seen)
        return state.f_bavail * state.f_frsize

    def fill(self, but: int = 0) -> None:
        """Leave `but` bytes."""
        self._filled += 1
        with (self.seen / f"filler{self._filled}").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while self.free() > but:
                file.write(bytes(min(1 << 20, self.free() - but)))

    def empty(self) -> None:
        """Give the space back."""
        for filler in self.seen.glob("filler*"):
            filler.unlink()

    def turn(self, how: str) -> None:
        """`ro` or `rw`."""
        self.keeper_does("mount", "-o", f"remount,{how}", str(self.at))

    def keeper_does(self, *command: str) -> None:
        """Run a command with the keeper's rights."""
        subprocess.run(["nsenter", "--target", str(self.keeper.pid), "--user", "--preserve-credentials", "--mount",
                        "--", *command], check=True)


@contextlib.contextmanager
def mounted_disk(at: Path, mib: int) -> Iterator[Disk]:
    """A disk of so many MiB; the test is left out where the kernel lets nobody mount one."""
    at.mkdir()
    script = f"mount -t tmpfs -o size={mib}m,mode=755 none '{at}' && echo mounted && exec sleep infinity"
    with subprocess.Popen([*_NAMESPACE, "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True) as keeper:
        assert keeper.stdout
        if keeper.stdout.readline().strip() != "mounted":
            pytest.skip("left out: no file system can be mounted here (unshare --user --mount)")
        try:
            yield Disk(at, keeper)
        finally:
            keeper.kill()


_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
static const long jumps[] = {0, 3600, -86400, 0, 86400 * 40, -7200, -86400 * 365};
static long off(long now) { return jumps[(now / PERIOD) % (sizeof jumps / sizeof *jumps)]; }
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(id, t);
    if (!done && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += off(t->tv_sec);
    return done;
}
int gettimeofday(struct timeval *t, void *zone) {
    struct timespec s;
    clock_gettime(CLOCK_REALTIME, &s);
    t->tv_sec = s.tv_sec; t->tv_usec = s.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *t) {
    struct timespec s;
    clock_gettime(CLOCK_REALTIME, &s);
    if (t) *t = s.tv_sec;
    return s.tv_sec;
}
"""


def jumping_clock(folder: Path, period_s: int = 2) -> dict[str, str]:
    """The environment of a process whose clock jumps every `period_s` seconds: hours, 40 days, a year, back and forth.

    The times of files stay the kernel's, as they do when a clock is set.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("left out: a clock that jumps needs a C compiler")
    (folder / "clock.c").write_text(_CLOCK)
    library = folder / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", f"-DPERIOD={period_s}", "-o", library, folder / "clock.c", "-ldl"],
                   check=True)
    return {"LD_PRELOAD": str(library)}


@dataclass
class CuttableConnection:
    """A TCP port that leads to another one, until it is cut.

    Attributes:
        port: to connect to.
        after: bytes of one answer after which its connection is dropped; `None`: all of them.
        cuts: connections that were dropped.
    """

    target: int
    after: int | None = None
    cuts: int = 0
    port: int = 0
    open: bool = True
    _ends: set[socket.socket] = field(default_factory=set)

    def cut(self) -> None:
        """Drop every connection, and refuse new ones until `open` is true again."""
        self.open = False
        for end in list(self._ends):
            self._drop(end)
            self.cuts += 1

    def _drop(self, end: socket.socket) -> None:
        self._ends.discard(end)
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()

    def serve(self, listener: socket.socket) -> None:
        """Until the listener is closed."""
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            if not self.open:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self.target))
            self._ends |= {near, far}
            threading.Thread(target=self._pass, args=(near, far, None), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, self.after), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, after: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 14):
                if after is not None and passed + len(piece) > after:
                    sink.sendall(piece[: after - passed])
                    self.cuts += 1
                    break
                sink.sendall(piece)
                passed += len(piece)
        self._drop(source)
        self._drop(sink)


@contextlib.contextmanager
def cuttable_connection(target: int, after: int | None = None) -> Iterator[CuttableConnection]:
    """A `CuttableConnection` to a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = CuttableConnection(target, after, port=listener.getsockname()[1])
        threading.Thread(target=found.serve, args=(listener,), daemon=True).start()
        yield found
        listener.shutdown(socket.SHUT_RDWR)


@dataclass
class ForkedCommand:
    """`heartml ARGUMENTS` in a fork of this process: its imports are there already, so that its work is what is hit."""

    pid: int
    output: Path
    status: int | None = None
    _printed: str | None = None

    def send_signal(self, after_s: float, number: int) -> bool:
        """Send a signal after so many seconds; returns whether the command was still running then."""
        deadline = time.monotonic() + after_s
        while time.monotonic() < deadline and self._poll() is None:
            time.sleep(0.002)
        if self._poll() is not None:
            return False
        os.kill(self.pid, number)
        return True

    def wait(self, timeout_s: float = 120) -> str:
        """Wait until it has ended; returns what it printed."""
        deadline = time.monotonic() + timeout_s
        while self._poll() is None:
            assert time.monotonic() < deadline, f"it hangs: {self.output.read_text()}"
            time.sleep(0.01)
        if self._printed is None:
            self._printed = self.output.read_text()
            self.output.unlink()
        return self._printed

    @property
    def running(self) -> bool:
        """Whether it is still at work."""
        return self._poll() is None

    def _poll(self) -> int | None:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status


def fork_command(
    project: Workspace, *arguments: object, act: Callable[[], object] | None = None, **environment: str
) -> ForkedCommand:
    """Start `heartml ARGUMENTS`, or `act`, in the folder of the project, on its disk where it has one."""
    number, name = tempfile.mkstemp(prefix="printed-")
    os.close(number)
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})      # Ctrl-C waits until the command begins
    gc.freeze()          # the fork need not look through what is here already, which would copy its memory
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            status = _run_in_fork(project, Path(name), list(map(str, arguments)), act, environment)
        finally:
            os._exit(status)
    signal.pthread_sigmask(signal.SIG_SETMASK, former)
    return ForkedCommand(pid, Path(name))


def _run_in_fork(
    project: Workspace, output: Path, arguments: list[str], act: Callable[[], object] | None,
    environment: Mapping[str, str],
) -> int:
    """The life of the forked process."""
    with output.open("wb", buffering=0) as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "MLFLOW_", "HEARTML_", "DVC_"))]:
        del os.environ[name]
    if isinstance(project, OnDisk):
        project.enter()
    else:
        os.chdir(project.root)
    os.environ |= environment
    if "prefect" in sys.modules:        # another test imported it: it has read its environment already
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()
    sys.argv = ["heartml", *arguments]
    from heartml.cli import main

    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    except KeyboardInterrupt:      # before it began
        return 130
    try:
        (act or main)()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:  # noqa: BLE001 - what Python itself would do
        traceback.print_exc()
        return 1
    return 0


def _belongs(process: psutil.Process, project: Workspace) -> bool:
    if isinstance(project, OnDisk):
        mine, its = (Path(f"/proc/{pid}/ns/mnt").readlink() for pid in (project.keeper, process.pid))
        return process.pid != project.keeper and its == mine
    return Path(process.cwd()).is_relative_to(project.root)


def processes_left(project: Workspace) -> list[psutil.Process]:
    """Living processes that work in the project, whoever started them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE and _belongs(process, project):
                found.append(process)
    return found


def assert_no_process_left(project: Workspace) -> None:
    """Within seconds no process of the project lives."""
    deadline = time.monotonic() + _GONE_S
    while (left := processes_left(project)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, [(process.pid, process.cmdline()) for process in left]
