"""Is this what the authors got? The outputs of one task's stages, compared with the `dvc.lock` that git has committed.

In: `dvc.lock` as it is and as git's HEAD has it, and the metrics of both. Out: one sentence. The stage `report` logs
it, because it comes last, so `dvc repro` and `heartml retrain` say it in a fresh clone. Nothing is made from it, and a
lock that is older than the code harms nobody: DVC runs what has changed, and the sentence names it.

The metrics behind the committed lock are fetched from a remote that is a folder, because `dvc metrics diff` looks for
such a remote in the wrong place when it reads another commit (DVC 3.67 takes a relative path from the root of git).
"""

import configparser
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from heartml.core import paths
from heartml.core.system.files import replacing
from heartml.pipeline import git

DVC_LOCK = Path("dvc.lock")
Lock = Mapping[str, Mapping[str, Any]]      # address of a stage -> its entry
_CONFIG = (Path(".dvc/config"), Path(".dvc/config.local"))
_CACHE = Path(".dvc/cache")
_NAMED = 3      # stages in the sentence


def in_words(task: str) -> str:
    """What the outputs of a task are, compared with the committed ones; empty where nothing is committed for it."""
    committed = of_task(committed_lock(), task)
    if not committed:
        return ""
    present = of_task(_stages(DVC_LOCK.read_bytes() if DVC_LOCK.is_file() else b""), task)
    summary = paths.evaluation(task) / "summary.json"
    then = _committed_metrics(committed, summary)
    now = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else None
    return compare(committed, _with_own_report(present, committed, task), then, now)


def compare(committed: Lock, present: Lock, then: Any, now: Any) -> str:
    """The sentence for two locks and the metrics behind them; `None` where metrics are not known.

    Args:
        committed, present: entries of the same task.
        then, now: nested metrics of the committed lock and of the present one.
    """
    if all(_outs(entry) == _outs(present.get(address, {})) for address, entry in committed.items()):
        return "the same bytes as the committed dvc.lock"
    changed = [address for address, entry in committed.items() if _inputs(entry) != _inputs(present.get(address, {}))]
    numbers = _difference_in_words(then, now)
    if changed:
        more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        return (f"made from other code, parameters or data than the committed dvc.lock ({', '.join(changed[:_NAMED])}"
                f"{more}); {numbers}")
    return f"other bytes than the committed dvc.lock, from the same inputs (another processor?); {numbers}"


def _difference_in_words(then: Any, now: Any) -> str:
    """`numbers differ by at most 0.012 (held_out.uar)`.

    >>> _difference_in_words({"uar": 0.5, "units": {"n": 4}}, {"uar": 0.25, "units": {"n": 4}})
    'numbers differ by at most 0.25 (uar)'
    """
    if then is None or now is None:
        return "its metrics are not here, so by how much the numbers differ is not known"
    first, second = dict(_numbers(then)), dict(_numbers(now))
    gaps = {name: abs(first[name] - second[name]) for name in first if name in second}
    if set(first) != set(second):
        return "the metrics have other names: `dvc metrics diff` lists them"
    largest = max(gaps, key=lambda name: gaps[name], default="")
    if not largest or gaps[largest] == 0:
        return "no metric differs"
    return f"numbers differ by at most {gaps[largest]:.3g} ({largest})"


def _numbers(values: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _numbers(value, f"{name}.{key}" if name else str(key))
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield name, float(values)


def committed_lock() -> Lock:
    """The stages of the `dvc.lock` of git's HEAD; none where git has no such file or cannot be asked."""
    with contextlib.suppress(git.GitRefused):
        done = git.run("cat-file", "blob", f"HEAD:./{DVC_LOCK}")
        return _stages(done.stdout) if done.returncode == 0 else {}
    return {}


def _stages(content: bytes) -> Lock:
    try:
        found = yaml.safe_load(content)
    except yaml.YAMLError:
        return {}
    stages = found.get("stages") if isinstance(found, dict) else None
    return stages if isinstance(stages, dict) else {}


def of_task(lock: Lock, task: str) -> Lock:
    """The entries of a task: those of its own stages, and that of validation where it has any."""
    own = {address: entry for address, entry in lock.items()
           if address.partition("@")[2] == task or address.startswith(f"features@{task}-")}
    return {**({"validate": lock["validate"]} if own and "validate" in lock else {}), **own}


def _with_own_report(present: Lock, committed: Lock, task: str) -> Lock:
    """The present entries with the page that the stage has just written: DVC enters it when the stage has ended."""
    address, page = f"report@{task}", paths.report(task)
    if address not in committed or not page.is_file():
        return present
    digest = hashlib.md5(page.read_bytes(), usedforsecurity=False).hexdigest()
    inputs = present.get(address) or committed[address]
    return {**present, address: {**inputs, "outs": [{"path": page.as_posix(), "md5": digest}]}}


def _outs(entry: Mapping[str, Any]) -> dict[str, str]:
    return {str(out["path"]): str(out.get("md5")) for out in entry.get("outs", [])}


def _inputs(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Command, parameters, data and code of a stage, without what other stages made for it."""
    deps = {str(dep["path"]): str(dep.get("md5")) for dep in entry.get("deps", [])
            if Path(dep["path"]).parts[0] != str(paths.ARTIFACTS)}
    return {"cmd": entry.get("cmd"), "params": entry.get("params"), "deps": deps}


def _committed_metrics(committed: Lock, summary: Path) -> Any:
    """The content of the committed metrics file; `None` where neither the cache nor a folder has it."""
    digest = next((outs[summary.as_posix()] for entry in committed.values()
                   if summary.as_posix() in (outs := _outs(entry))), None)
    cached = fetch(digest) if digest else None
    if cached is None:
        return None
    try:
        return json.loads(cached.read_text(encoding="utf-8"))
    except ValueError:
        return None


def fetch(digest: str) -> Path | None:
    """The object with this MD5 in DVC's cache, copied there from a remote that is a folder; `None` where it is not."""
    name = Path("files/md5") / digest[:2] / digest[2:]
    cached = _CACHE / name
    if not cached.is_file():
        remote = remote_folder()
        stored = remote / name if remote else None
        if stored is None or not stored.is_file():
            return None
        with contextlib.suppress(OSError), replacing(cached) as temporary:
            shutil.copyfile(stored, temporary)
        if not cached.is_file():
            return stored
    return cached


def remote_folder() -> Path | None:
    """The folder of DVC's default remote; `None` where it is a service, or there is none."""
    config = configparser.ConfigParser(interpolation=None, strict=False)
    with contextlib.suppress(configparser.Error, UnicodeDecodeError):
        config.read(_CONFIG, encoding="utf-8")
    remote = config.get("core", "remote", fallback="")
    url = config.get(f"'remote \"{remote}\"'", "url", fallback="")
    return Path(os.path.normpath(_CONFIG[0].parent / url)) if url and "://" not in url else None
