"""The content key names a search's study: whatever a trial's value depends on makes another one, and nothing else."""

import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import optuna
import pandas as pd
import pytest
from support import search_project
from support.search_project import NAME, ROOT

import heartml
from heartml.core import config, paths
from heartml.core.tasks import TASKS, Task
from heartml.metrics import METRICS
from heartml.stages import search
from heartml.training import search_run

UNIT = {"encoder": "logspec", "level": "unit", "pooling": "statistics", "head": "logistic",
        "hyperparameters": {"c": 0.01, "balance": 1.0}}
QUICK = {"trials": 2, "batch": 2, "network_trials": {}, "heads": ["logistic"], "initial_trials": [UNIT], "tasks": {}}
METRIC = TASKS["murmur"].metric
DECIDED_BY_OTHERS = (      # what the search imports and the key covers in another way, or need not cover
    "audio", "models/encoders/",                      # the frames' content
    "core/config.py", "core/lung_tasks.py", "core/task_definition.py", "core/tasks.py",      # their values
    "core/paths.py", "core/stage.py", "core/system/",      # where and how, not what
    "models/heard.py",                                # refuses a search, and changes none
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        search_project.write(root, children=24, **QUICK)
    return root


@pytest.fixture
def project(written: Path, tmp_path: Path, monkeypatch) -> Path:
    root = shutil.copytree(written, tmp_path / "project")
    monkeypatch.chdir(root)
    return root


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("code") / "heartml"
    return shutil.copytree(ROOT / "heartml", copy, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def code(copied: Path, monkeypatch) -> Path:
    """A copy of the package whose source the key is taken of; what runs is still the original."""
    monkeypatch.setattr(heartml, "__file__", str(copied / "__init__.py"))
    return copied


def key(**changes: object) -> str:
    return search_run.content_key(NAME, config.load().model_copy(update=changes))


def with_search(**changes: object) -> str:
    return key(search=config.load().search.model_copy(update=changes))


def other_task(monkeypatch, **changes: object) -> None:
    monkeypatch.setitem(TASKS, "murmur", replace(TASKS["murmur"], **changes))


@pytest.mark.parametrize("module", [
    "metrics/__init__.py", "metrics/functions.py", "metrics/class_gains.py", "models/heads/linear.py",
    "models/ensemble/decision_rule.py", "models/pooling.py", "training/training_set.py", "core/folds.py",
])
def test_other_code_that_scores_is_another_search(project: Path, code: Path, module: str) -> None:
    before = key()
    with (code / module).open("a") as file:
        file.write("# changed\n")
    assert key() != before


@pytest.mark.parametrize("module", ["reporting/svg.py", "evaluation/baselines.py", "stages/report.py",
                                    "cli/stages.py", "core/paths.py"])
def test_code_that_does_not_score_leaves_the_search_alone(project: Path, code: Path, module: str) -> None:
    before = key()
    with (code / module).open("a") as file:
        file.write("# changed\n")
    assert key() == before


@pytest.mark.parametrize("change", [
    {"classes": ("Absent", "Unknown", "Present")}, {"classes": ("Present", "Absent")}, {"metric": "uar"},
    {"unit": "recording"}, {"recording_label": None}, {"rare": "left out"}, {"label": "outcome"},
])
def test_another_task_is_another_search(project: Path, monkeypatch, change: dict) -> None:
    before = key()
    other_task(monkeypatch, **change)
    assert key() != before


def test_what_is_only_reported_leaves_the_search_alone(project: Path, monkeypatch) -> None:
    before = key()
    other_task(monkeypatch, official=("uar",), positive=None, coarse_classes=())
    assert key() == before
    assert set(search_run.REPORTING_FIELDS) <= {field.name for field in fields(Task)}


def test_other_parameters_are_another_search_and_more_workers_are_not(project: Path) -> None:
    before = key()
    assert key(seed=1) != before
    assert key(encoders=("logspec",)) != before
    stacking = config.load().stacking
    assert key(stacking=stacking.model_copy(update={"stack_c": 2 * stacking.stack_c})) != before
    assert with_search(pruning_startup_trials=3) != before
    assert with_search(workers=7) == before


def test_other_data_are_another_search(project: Path) -> None:
    before = key()
    folds = pd.read_parquet(paths.folds(NAME))
    folds.iloc[1:].to_parquet(paths.folds(NAME))
    assert key() != before


@pytest.mark.parametrize("library", ["numpy", "scipy", "scikit-learn", "torch", "lightgbm", "optuna", "timm"])
def test_another_version_of_a_library_is_another_search(project: Path, monkeypatch, library: str) -> None:
    before, installed = key(), search_run.metadata.version
    monkeypatch.setattr(search_run.metadata, "version", lambda name: "0" if name == library else installed(name))
    assert key() != before


def test_optional_libraries_count_where_a_head_needs_them(monkeypatch) -> None:
    monkeypatch.setattr(search_run.metadata, "version", lambda name: f"9 of {name}")
    plain = search_run.library_versions(["logistic", "sequence"])
    assert plain == search_run.library_versions() and "peft" not in plain
    more = search_run.library_versions(["logistic", "describe"])
    assert more == {**plain, "peft": "9 of peft", "transformers": "9 of transformers"}

    def missing(name: str) -> str:
        raise search_run.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(search_run, "LIBRARIES", ())
    monkeypatch.setattr(search_run.metadata, "version", missing)
    assert search_run.library_versions(["finetune"]) == {"peft": None, "transformers": None}


def test_every_module_that_the_search_imports_is_covered() -> None:
    command = ("import sys, heartml.training.search_run; from heartml.models.heads import HEADS; "
               "[one() for one in HEADS.values()]; "
               "print(*[m.__file__ for n, m in sys.modules.items() if n.startswith('heartml.') and m.__file__])")
    found = subprocess.run([sys.executable, "-c", command], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    modules = {Path(file).relative_to(ROOT / "heartml").as_posix() for file in found.split()}
    covered = (*search_run.CODE, *DECIDED_BY_OTHERS)
    left = {m for m in modules if not m.startswith(covered)} - {"core/__init__.py", "models/__init__.py"}
    assert "metrics/__init__.py" in modules
    assert not left


def studies(url: str) -> dict[str, list[float]]:
    """Name of each study in a storage -> values of its trials."""
    return {name: [t.value for t in optuna.load_study(study_name=name, storage=url).get_trials(deepcopy=False)]
            for name in optuna.get_all_study_names(url)}


def test_after_a_metric_or_a_class_list_changed_the_trials_of_a_shared_storage_are_asked_anew(
    project: Path, code: Path, tmp_path: Path, monkeypatch
) -> None:
    """As it was, the second search found the first one's study and took its trials for its own."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    monkeypatch.setenv("HEARTML_OPTUNA_STORAGE", url)
    search.run(NAME)
    first = studies(url)
    assert len(first) == 1

    search.run(NAME)
    assert studies(url) == first

    with (code / "metrics/functions.py").open("a") as file:
        file.write("# the metric is now constant\n")
    monkeypatch.setitem(METRICS, METRIC, replace(METRICS[METRIC], weighted=lambda *given: given[-1].sum(1) * 0 + 0.123))
    search.run(NAME)
    second = studies(url)
    assert len(second) == 2
    (own,) = [values for name, values in second.items() if name not in first]
    assert own == pytest.approx([0.123] * 2)
    assert list(pd.read_parquet(paths.search(NAME) / "trials.parquet")["value"]) == pytest.approx([0.123] * 2)

    other_task(monkeypatch, classes=("Absent", "Unknown", "Present"))
    search.run(NAME)
    assert len(studies(url)) == 3
