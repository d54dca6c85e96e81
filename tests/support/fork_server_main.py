"""The process of `fork_server`: `python fork_server_main.py SOCKET`. It ends when its standard input is closed."""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from typing import Any, NoReturn

# What commands import after their start; what these import themselves need not be named.
LIBRARIES = (
    "alembic.config", "anyio", "click", "dvc.lock", "dvc.repo.plots", "dvc.repo.reproduce", "dvc.scm",
    "dvc.stage.cache", "fastapi", "great_expectations", "griffe", "h2", "httpx", "jinja2",
    "matplotlib.backends.backend_agg", "matplotlib.figure", "mlflow.pyfunc",
    "mlflow.store.model_registry.sqlalchemy_workspace_store", "mlflow.store.tracking.sqlalchemy_workspace_store",
    "mlflow.utils.search_logged_model_utils", "model_signing.signing", "model_signing.verifying", "numpy", "optuna",
    "pandas", "pendulum", "prometheus_client", "psutil", "pyarrow.dataset", "pyarrow.parquet", "pydantic",
    "pydantic_settings", "rich.console", "rich.progress", "rich.table", "ruamel.yaml", "safetensors.torch",
    "scipy.optimize", "scipy.signal", "scipy.stats", "scmrepo.git", "sklearn.ensemble", "sklearn.linear_model",
    "sklearn.metrics", "sklearn.model_selection", "sklearn.pipeline", "sklearn.svm", "soundfile", "sqlalchemy.orm",
    "torch", "uvicorn", "websockets", "yaml",
)


def main(address: str) -> None:
    """Fork at every request until standard input ends; import before the first one."""
    base = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]  # noqa: PTH100, PTH120
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        print("listening", flush=True)
        if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
            return
        gc.disable()
        for name in LIBRARIES:
            importlib.import_module(name)
        gc.enable()
        gc.freeze()      # a fork need not look through them, which would copy their memory
        waiting: dict[int, socket.socket] = {}
        while True:
            readable, _, _ = select.select([listener, sys.stdin], [], [], 0.02 if waiting else None)
            if sys.stdin in readable:
                return
            if listener in readable:
                connection, _ = listener.accept()
                request = json.loads(connection.makefile("r").readline())
                pid = os.fork()
                if pid == 0:
                    for other in (listener, connection, *waiting.values()):
                        other.close()
                    _become(request, base)
                connection.sendall(f"{pid}\n".encode())
                waiting[pid] = connection
            for pid in list(waiting):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    with contextlib.suppress(OSError), waiting.pop(pid) as connection:
                        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become(request: dict[str, Any], base: list[str]) -> NoReturn:
    """Be `python -m heartml ARGUMENTS` from here on."""
    status = 70
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            to = os.open(f"{request['printed']}/{name}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(to, number)
            os.close(to)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
            for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace")))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        added = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        sys.path[:] = [os.getcwd(), *added, *base]  # noqa: PTH109
        sys.argv = ["heartml", *request["arguments"]]
        sys.orig_argv[:] = [sys.executable, "-m", *sys.argv]
        status = _run()
        threading._shutdown()  # type: ignore[attr-defined]
        import atexit

        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - this process must end here
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _run() -> int:
    try:
        runpy.run_module("heartml", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main(sys.argv[1])
