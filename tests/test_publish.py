"""After the stages: one version for each content, judged on common held-out units, explained by what its run keeps."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import builders
import numpy as np
import pandas as pd
import pytest
import tiny
import yaml
from builders import TASK

from heartml import evaluate, lineage, publish, registry, tracking
from heartml.core import config, files, paths, tasks
from heartml.core.config import Params
from heartml.core.errors import HeartMLError
from heartml.publish import KNOWN, Outcome, contest, gate
from heartml.registry import CHALLENGER, CHAMPION, PROMOTED, REFUSED

GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")
DATA_HASH = "0123456789abcdef0123456789abcdef.dir"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A finished project, all but registered: real folds, evaluation and model, as its stages leave them."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        builders.reported(root, patch, skill=1.5)
        shutil.rmtree(paths.model(TASK))
        tiny.fit(paths.model(TASK))
        shutil.copy(builders.ROOT / "dvc.yaml", root)
        Path("requirements.lock").write_text("numpy==2\n")
        data = {"md5": DATA_HASH, "nfiles": 9, "size": 9, "path": "data"}
        Path("data.dvc").write_text(yaml.safe_dump({"outs": [data]}))
        stage = {"cmd": "python -m heartml ensemble", "deps": [{"path": "data", "md5": DATA_HASH}],
                 "outs": [{"path": paths.model(TASK).as_posix(), "md5": "aa.dir"}]}
        Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {f"ensemble@{TASK}": stage}}))
        Path(".gitignore").write_text("/data\n/artifacts\n/reports\n/.heartml\n")
        for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all of it"]):
            subprocess.run([*GIT, *command], check=True)
        Path(".heartml").mkdir(exist_ok=True)
        shutil.copyfile(empty_store, ".heartml/mlflow.db")
    return root


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path) -> Path:
    """A copy of it, to be changed, as the working folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "project"
    shutil.copytree(finished, root)
    monkeypatch.chdir(root)
    return root


def answer(skill: float, seed: int = 1, keep: Callable[[pd.DataFrame], pd.Series] | None = None) -> None:
    """Evaluate a model of another skill on the same held-out units, or on those that `keep` says."""
    params = config.load()
    if keep:
        folds = pd.read_parquet(paths.folds(TASK))
        files.write_parquet(paths.folds(TASK), folds[keep(folds)])
    recordings = evaluate.read_recordings(TASK, params.validate_)
    held_out = recordings[recordings["part"] == "test"]
    said = builders.predict(held_out, np.random.default_rng(seed), skill)
    evaluate.write_evaluation(TASK, said, recordings, params)


def publish_it(params: Params | None = None) -> Outcome:
    return publish.publish(TASK, params or config.load(), {"search@simulated-murmur": 12.5})


def states() -> list[tuple[str, str | None, tuple[str, ...]]]:
    return [(v.number, v.verdict, v.aliases) for v in registry.versions(tracking.connect(), TASK)]


def run_states() -> list[str]:
    client = tracking.connect()
    experiments = [e.experiment_id for e in client.search_experiments()]
    return sorted(run.info.status for run in client.search_runs(experiments))


def test_the_first_model_is_promoted_and_its_run_explains_it(project: Path) -> None:
    outcome = publish_it()
    assert outcome.state == PROMOTED
    assert states() == [("1", PROMOTED, (CHAMPION,))]
    client = tracking.connect()
    run = client.get_run(outcome.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["split.folds"] == "5"
    assert run.data.params["encoders"] == '[\n  "logspec",\n  "random_conv"\n]'
    found = outcome.evaluation["held_out"]["uar"]
    assert run.data.metrics["held_out/uar"] == found["value"]
    assert run.data.metrics["held_out/uar_low"] == found["low"]
    assert run.data.metrics["floor/majority/uar"] == outcome.evaluation["floors"]["majority"]["uar"]["value"]
    assert run.data.metrics["seconds/search/simulated-murmur"] == 12.5
    assert run.data.tags["heartml.data"] == DATA_HASH
    assert run.data.tags["heartml.code_dirty"] == "false"
    assert len(run.data.tags["mlflow.source.git.commit"]) == 40
    [given] = run.inputs.dataset_inputs
    assert given.dataset.digest == DATA_HASH.removesuffix(".dir")
    kept = {item.path for item in client.list_artifacts(outcome.run_id)}
    assert {"dvc.lock", "params.yaml", "data.dvc", "requirements.lock", "folds.parquet", "validation", "evaluation",
            "out_of_fold.parquet", "lineage.json", "gate.json", "report.html"} <= kept
    assert "code.diff" not in kept


def test_the_page_says_the_verdict_and_lies_in_run_and_folder(project: Path, tmp_path: Path) -> None:
    outcome = publish_it()
    assert outcome.report == "reports/simulated-murmur.html"
    page = Path(outcome.report).read_text(encoding="utf-8")
    assert "Promoted: version 1 is the champion" in page
    stored = tracking.fetch(tracking.connect(), outcome.run_id or "", "report.html", tmp_path / "fetched")
    assert stored.read_text(encoding="utf-8") == page


def test_nothing_new_registers_nothing(project: Path) -> None:
    first, again = publish_it(), publish_it()
    assert (first.state, again.state) == (PROMOTED, KNOWN)
    assert "version 1 and is the champion" in again.reason
    assert run_states() == ["FINISHED"]
    assert len(states()) == 1


def test_a_lost_page_is_written_again_and_nothing_else(project: Path) -> None:
    page = Path(publish_it().report or "")
    before = page.read_bytes()
    shutil.rmtree(page.parent)
    assert publish_it().state == KNOWN
    assert page.read_bytes() == before
    assert run_states() == ["FINISHED"]


def test_a_better_model_takes_over_and_a_worse_one_does_not(project: Path) -> None:
    first = publish_it()
    assert first.state == PROMOTED, first.reason
    answer(skill=12)
    better = publish_it()
    assert better.state == PROMOTED, better.reason
    assert "against champion 1" in better.reason
    answer(skill=0.2, seed=5)
    worse = publish_it()
    assert worse.state == REFUSED
    assert "better:" in worse.reason
    assert states() == [("1", PROMOTED, ()), ("2", PROMOTED, (CHAMPION,)), ("3", REFUSED, (CHALLENGER,))]
    assert "Not promoted: version 3" in Path(worse.report or "").read_text(encoding="utf-8")


def test_a_model_without_lineage_is_registered_but_not_promoted(project: Path) -> None:
    shutil.rmtree(project / ".git")
    outcome = publish_it()
    assert outcome.state == REFUSED
    assert "no git commit" in outcome.reason
    assert states() == [("1", REFUSED, (CHALLENGER,))]


def test_changed_code_is_kept_with_the_run(project: Path, tmp_path: Path) -> None:
    (project / "new_module.py").write_text("answer = 42\n")
    outcome = publish_it()
    stored = tracking.fetch(tracking.connect(), outcome.run_id or "", "code.diff", tmp_path / "fetched")
    diff = stored.read_text(encoding="utf-8")
    assert "+answer = 42" in diff
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout
    assert "new_module.py" not in listed, "the user's index stays as it was"
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(project), str(clone)], check=True)
    subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=clone, check=True)
    assert (clone / "new_module.py").read_text() == "answer = 42\n"


@pytest.mark.parametrize("module, name", [(registry, "register"), (registry, "record"), (registry, "settle"),
                                          (publish, "_write_page")])
def test_a_run_that_ended_between_two_steps_is_finished_by_the_next(
    project: Path, monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            publish_it()
    outcome = publish_it()
    assert outcome.state == (KNOWN if name == "_write_page" else PROMOTED)
    assert states() == [("1", PROMOTED, (CHAMPION,))]
    assert Path(outcome.report or "").exists()


def test_a_run_that_fails_registers_nothing_and_is_marked(project: Path) -> None:
    (paths.model(TASK) / "model.json").write_text("{}")
    with pytest.raises(HeartMLError, match="Retrain"):
        publish_it()
    assert states() == []
    assert run_states() == ["FAILED"]


def test_the_champion_is_asked_about_units_that_came_after_it(project: Path) -> None:
    folds = pd.read_parquet(paths.folds(TASK))
    late = folds.loc[folds["part"] == "test", "group_id"].unique()[:3]
    answer(skill=12, keep=lambda table: ~table["group_id"].isin(late))
    assert publish_it().state == PROMOTED
    files.write_parquet(paths.folds(TASK), folds)
    answer(skill=12)
    params, client = config.load(), tracking.connect()
    champion = registry.champion(client, TASK)
    assert champion
    unasked = params.model_copy(update={"gate": params.gate.model_copy(update={"catch_up_recordings": 0})})
    units = folds.loc[folds["part"] == "test", "unit_id"].nunique()
    came_later = folds.loc[folds["group_id"].isin(late), "unit_id"].nunique()
    for given, unknown in ((params, 0), (unasked, came_later)):
        comparison = contest.judge(client, TASK, champion, given).comparison
        assert comparison
        assert (comparison.unknown, comparison.units) == (unknown, units - unknown)


def test_units_in_the_champions_training_are_left_out(project: Path) -> None:
    publish_it()
    folds = pd.read_parquet(paths.folds(TASK))
    swapped = folds.assign(part=folds["part"].map({"test": "0", "0": "test"}).fillna(folds["part"]))
    client, task = tracking.connect(), tasks.resolve(TASK).task
    champion = registry.champion(client, TASK)
    assert champion
    held = contest.held_out(tasks.resolve(TASK))
    rival = contest.of_champion(client, champion, task, contest.Held(held.answers, swapped, held.known, {}), 0)
    assert len(gate.untrained(folds, rival.trained_on)) == folds.loc[folds["part"] == "test", "unit_id"].nunique()
    assert len(gate.untrained(swapped, rival.trained_on)) == 0


def test_the_registered_model_loads_without_pickle_and_without_this_repository(project: Path, tmp_path: Path) -> None:
    publish_it()
    code = (
        "import mlflow, json\n"
        f"model = mlflow.pyfunc.load_model('models:/{TASK}@champion')\n"
        "import heartml\n"
        "said = model.predict(model.input_example)\n"
        "print(json.dumps({'said': list(said['decision']), 'columns': list(said), 'code': heartml.__file__,"
        " 'signed': model.metadata.signature is not None}))\n"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_TRACKING_URI": tracking.address(),
        "HEARTML_TRUSTED_KEYS": str(project / paths.OWN_KEY.with_suffix(".pub"))}
    done = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, env=env, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["signed"]
    assert "mlartifacts" in found["code"], "the code that was stored with the model answers"
    assert len(found["said"]) == 2
    assert {"decision", "confidence"} <= set(found["columns"])
    stored = [p for p in (project / ".heartml/mlartifacts/models").rglob("*") if p.is_file()]
    assert not [p for p in stored if p.suffix in (".pkl", ".pickle", ".joblib", ".skops", ".pt")]


def test_the_key_follows_the_content_and_nothing_else(project: Path) -> None:
    key = lineage.content_key(TASK)
    os.utime(paths.model(TASK) / "model.json", (1, 1))
    assert lineage.content_key(TASK) == key
    answer(skill=2, seed=9)
    assert lineage.content_key(TASK) != key
