"""A project small enough to be retrained in a test: simulated children, three trials, and what its runs left behind."""

import hashlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import yaml
from support import workspaces
from support.workspaces import Workspace

TASK = "simulated-murmur"
STAGES = ("validate", f"split@{TASK}", f"features@{TASK}-logspec", f"features@{TASK}-random_conv", f"search@{TASK}",
          f"ensemble@{TASK}", f"evaluate@{TASK}", f"robustness@{TASK}", f"report@{TASK}")


def make(root: Path, empty_store: Path) -> Workspace:
    """Ingested, committed, nothing run yet."""
    project = workspaces.make(root)
    _shrink(project / "params.yaml")
    project.run("simulate", root.parent / "sim", "--children", 48, "--seconds", 4, "--no-faults")
    project.run("ingest", "simulated", root.parent / "sim")
    project.commit("ingested")
    shutil.copyfile(empty_store, project / ".heartml/mlflow.db")
    return project


def _shrink(params: Path) -> None:
    numbers: dict[str, Any] = yaml.safe_load(params.read_text())
    numbers["split"]["folds"] = 3
    starts = [start for start in numbers["search"]["initial_trials"] if "head=logistic" in start]
    numbers["search"] |= {"trials": 3, "network_trials": {}, "batch": 3, "pruning_startup_trials": 3, "tasks": {},
                          "workers": 1,     # another one takes three seconds to start; test_search.py has two
                          "heads": ["logistic", "extra_trees"], "initial_trials": starts[:2]}
    numbers["evaluate"] |= {"bootstrap": 100, "baselines": ["majority"]}   # nine held-out children tell no more
    numbers["robustness"]["conditions"] = {"white_snr_db": [0], "clock_share": [0.02]}
    numbers["gate"] |= {"bootstrap": 100, "calibration_limit": 1.0, "first_model": "value"}
    numbers["applicability"] |= {"made_up_sounds": 4, "simulated_children": 3, "trees": 20}
    numbers["flow"] |= {"stages_at_once": 2, "stage_retry_delays_s": [0], "network_retry_delays_s": [0]}
    params.write_text(yaml.safe_dump(numbers, sort_keys=False))


def canonical_lock(project: Workspace) -> str:
    """`dvc.lock` as canonical JSON: every input, parameter and output of every stage, by hash."""
    return json.dumps(yaml.safe_load((project / "dvc.lock").read_text()), sort_keys=True)


def output_checksums(project: Workspace) -> dict[str, str]:
    """SHA-256 of every file under `artifacts/`."""
    files = sorted(path for path in (project / "artifacts").rglob("*") if path.is_file())
    return {str(path.relative_to(project.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def forget_stage(project: Workspace, address: str) -> None:
    """As if the stage had never run: no entry in the lock, no output, no memory of an earlier run."""
    content = yaml.safe_load((project / "dvc.lock").read_text())
    for out in content["stages"].pop(address)["outs"]:
        path = project / out["path"]
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (project / "dvc.lock").write_text(yaml.safe_dump(content, sort_keys=False))
    shutil.rmtree(project / ".dvc/cache/runs", ignore_errors=True)


def empty_registry(project: Workspace, empty_store: Path) -> None:
    """An MLflow store without runs and models."""
    for part in (project / ".heartml").glob("mlflow.db*"):
        part.unlink()
    shutil.rmtree(project / ".heartml/mlartifacts", ignore_errors=True)
    shutil.rmtree(project / "reports", ignore_errors=True)
    shutil.copyfile(empty_store, project / ".heartml/mlflow.db")


def query_database(database: Path, query: str) -> list[tuple[Any, ...]]:
    """What an SQLite store says; empty where it has no such table yet."""
    if not database.exists():
        return []
    store = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
    try:
        return store.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        store.close()


def registered_versions(project: Workspace) -> list[tuple[Any, ...]]:
    """(version, verdict, alias) of every registered version; the journal of champions is none."""
    return query_database(project / ".heartml/mlflow.db", """
        select v.version, t.value, a.alias from model_versions v
        left join model_version_tags t on t.name = v.name and t.version = v.version and t.key = 'heartml.verdict'
        left join registered_model_aliases a on a.name = v.name and a.version = v.version
        where v.name not like '%.champions' order by v.version""")


def run_states(project: Workspace) -> set[str]:
    """States of the MLflow runs."""
    return {state for (state,) in query_database(project / ".heartml/mlflow.db", "select status from runs")}


def flow_states(project: Workspace, kind: str = "flow") -> list[str]:
    """States of Prefect's flow or task runs on the private server, oldest first."""
    query = f"select state_type from {kind}_run order by created"
    return [state for (state,) in query_database(project / ".heartml/prefect/prefect.db", query)]
