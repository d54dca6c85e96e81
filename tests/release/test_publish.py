"""After the stages: one version for each content, judged on common held-out units, explained by what its run keeps."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import grimp
import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache as places
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from registry.test_champions import Killed, Mortal
from support import finished_project, tiny_models
from support.finished_project import TASK

from heartml.core import config, paths, tasks
from heartml.core.config import Params
from heartml.core.system import files
from heartml.core.system.errors import HeartMLError
from heartml.evaluation import inputs
from heartml.lineage import capture
from heartml.registry import champions, consent, tracking, versions
from heartml.registry.versions import CHALLENGER, CHAMPION, PROMOTED, REFUSED
from heartml.release import comparison, comparison_page, gate, gate_inputs, overrides, publish
from heartml.release.publish import KNOWN, ReleaseOutcome
from heartml.reporting import model_card, number_format, task_report
from heartml.reporting.model_card import sections
from heartml.stages import evaluate

GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")
DATA_HASH = "0123456789abcdef0123456789abcdef.dir"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A finished project, all but registered: real folds, evaluation and model, as its stages leave them."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        finished_project.reported(root, patch, skill=1.5)
        shutil.rmtree(paths.model(TASK))
        tiny_models.fit(paths.model(TASK))
        shutil.copy(finished_project.ROOT / "dvc.yaml", root)
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
    recordings = inputs.read_recordings(TASK, params.validate_)
    held_out = recordings[recordings["part"] == "test"]
    said = finished_project.predict(held_out, np.random.default_rng(seed), skill)
    evaluate.write_evaluation(TASK, said, recordings, params)


def publish_it(params: Params | None = None) -> ReleaseOutcome:
    return publish.publish(TASK, params or config.load(), {"search@simulated-murmur": 12.5})


def states() -> list[tuple[str, str | None, tuple[str, ...]]]:
    return [(v.number, v.verdict, v.aliases) for v in versions.versions(tracking.connect(), TASK)]


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


@pytest.mark.parametrize("module, name", [(versions, "register"), (versions, "record"), (versions, "settle"),
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
    champion = versions.champion(client, TASK)
    assert champion
    unasked = params.model_copy(update={"gate": params.gate.model_copy(update={"catch_up_recordings": 0})})
    units = folds.loc[folds["part"] == "test", "unit_id"].nunique()
    came_later = folds.loc[folds["group_id"].isin(late), "unit_id"].nunique()
    for given, unknown in ((params, 0), (unasked, came_later)):
        comparison = gate_inputs.judge(client, TASK, champion, given).comparison
        assert comparison
        assert (comparison.unknown, comparison.units) == (unknown, units - unknown)


def test_units_in_the_champions_training_are_left_out(project: Path) -> None:
    publish_it()
    folds = pd.read_parquet(paths.folds(TASK))
    swapped = folds.assign(part=folds["part"].map({"test": "0", "0": "test"}).fillna(folds["part"]))
    client, task = tracking.connect(), tasks.resolve(TASK).task
    champion = versions.champion(client, TASK)
    assert champion
    held = gate_inputs.held_out(tasks.resolve(TASK))
    rival = gate_inputs.of_champion(client, champion, task, gate_inputs.Held(held.answers, swapped, held.known, {}), 0)
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


def needs(name: str, found: set[str]) -> set[str]:
    """A package, and all that comes with it."""
    name = canonicalize_name(name)
    if name not in found:
        found.add(name)
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                needs(requirement.name, found)
    return found


def test_a_server_of_the_model_has_every_package_that_the_model_imports() -> None:
    graph = grimp.build_graph("heartml", include_external_packages=True, cache_dir=None)
    own = graph.find_upstream_modules("heartml.inference.serving") - set(sys.stdlib_module_names)
    imported = {name for name in own if name.partition(".")[0] != "heartml"}
    assert {"torch", "lightgbm", "timm"} <= imported
    there: set[str] = set()
    for name in publish._SERVING:
        needs(name, there)
    packages = metadata.packages_distributions()
    assert not [name for name in imported if not {canonicalize_name(p) for p in packages[name]} & there]


def verdicts() -> dict[str, str]:
    """Criterion -> what stands on the newest version."""
    tags = versions.versions(tracking.connect(), TASK)[-1].tags
    return {tag.removeprefix("heartml.gate."): words for tag, words in tags.items() if tag.startswith("heartml.gate.")}


def overstate(temperature: float) -> None:
    """The same answers, said with another confidence."""
    path = paths.evaluation(TASK) / "predictions.parquet"
    table = pd.read_parquet(path)
    said = [column for column in table if column.startswith("c_")]
    sharp = table[said] ** (1 / temperature)
    files.write_parquet(path, table.assign(**sharp.div(sharp.sum(axis=1), axis=0)))
    metrics = files.read_json(paths.evaluation(TASK) / "metrics.json")
    metrics["held_out"]["ece"] = {"value": 0.4, "low": 0.3, "high": 0.5}
    files.write_json(paths.evaluation(TASK) / "metrics.json", metrics)


def test_each_criterion_stands_on_the_version_with_its_number_and_refuses_when_it_is_broken(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_write_page", lambda *_: None)
    files.write_json(paths.VALIDATION / "validation.json", {"success": False, "errors": ["no"], "warnings": []})
    overstate(0.3)
    assert publish_it().state == REFUSED
    first = verdicts()
    assert {name for name, words in first.items() if words.startswith("failed")} == {"calibration", "validation"}
    assert first["calibration"].startswith("failed (0.3): calibration error 0.400 [0.300, 0.500], refused where")
    assert first["validation"].startswith("failed (1): the data did not pass")
    files.write_json(paths.VALIDATION / "validation.json", {"success": True, "errors": [], "warnings": []})
    answer(skill=1.5)
    assert publish_it().state == PROMOTED
    assert set(verdicts()) == {"calibration", "floors", "validation", "lineage"}
    answer(skill=0.0, seed=8)
    overstate(0.05)
    assert publish_it().state == REFUSED
    worse = verdicts()
    assert set(worse) == {"better", "subgroups", "calibration", "floors", "validation", "lineage"}
    assert {name for name, words in worse.items() if words.startswith("failed")} >= {"better", "calibration", "floors"}
    assert all(re.match(r"(passed|failed)( \(-?[\d.e+-]+\))?: .", words) for words in worse.values())


def test_a_retraining_leaves_a_rollback_alone_and_says_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_write_page", lambda *_: None)
    publish_it()
    answer(skill=12)
    assert publish_it().version == "2"
    overrides.roll_back(TASK, None, "false alarms at the new clinic")
    for _ in range(2):
        outcome = publish_it()
        assert outcome.state == KNOWN
        assert "version 1 serves" in outcome.reason
        assert "false alarms at the new clinic" in outcome.reason
    assert states() == [("1", PROMOTED, (CHAMPION,)), ("2", PROMOTED, ())]
    answer(skill=12, seed=3)
    third = publish_it()
    assert third.state == PROMOTED
    assert "until now version 1 serves" in third.reason


def registered_only(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A champion, and a better challenger whose run died right after it was registered."""
    monkeypatch.setattr(task_report, "render", lambda *_: "a page")
    publish_it()
    answer(skill=12)
    with monkeypatch.context() as patch:
        patch.setattr(publish, "_judge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            publish_it()


def facts(root: Path) -> Any:
    client = tracking.connect()
    kept = [{item.path for item in client.list_artifacts(v.run_id)} for v in versions.versions(client, TASK)]
    tags = [{k: w for k, w in v.tags.items() if k != "heartml.process"} for v in versions.versions(client, TASK)]
    told = [(e.decision, e.counts, e.followed) for e in champions.read(client, TASK)]
    return states(), tags, told, kept, run_states(), (root / "reports" / f"{TASK}.html").read_text()


def test_a_death_at_any_write_after_registration_ends_as_if_undisturbed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered_only(project, monkeypatch)
    params = config.load()
    quick = params.model_copy(update={"gate": params.gate.model_copy(update={"bootstrap": 100})})
    verdict = gate_inputs.judge(tracking.connect(), TASK, versions.champion(tracking.connect(), TASK), quick)
    monkeypatch.setattr(gate_inputs, "judge", lambda *_: verdict)       # every run would come to the same
    connect = tracking.connect

    def run(name: str, lives: float) -> Mortal:
        shutil.copytree(project, tmp_path / name, symlinks=True)
        monkeypatch.chdir(tmp_path / name)
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path / name}/.heartml/mlflow.db")   # what storing a model left behind
        monkeypatch.delenv("MLFLOW_TRACKING_URI")                                    # and what that sets
        places.clear()                                                               # of the same run elsewhere
        client = Mortal(connect(), lives)
        with monkeypatch.context() as patch:
            patch.setattr(tracking, "connect", lambda: client)
            publish_it(quick)
        return client

    writes = run("undisturbed", float("inf")).writes
    expected = facts(tmp_path / "undisturbed")
    assert expected[0] == [("1", PROMOTED, ()), ("2", PROMOTED, (CHAMPION,))]
    assert writes > 15
    for lives in range(0, writes, 5):      # every single one: tests/registry/test_champions.py
        with pytest.raises(Killed, match=f"write {lives + 1}"):
            run(f"killed{lives}", lives)
        publish_it(quick)
        assert facts(tmp_path / f"killed{lives}") == expected, f"killed before write {lives + 1} of {writes}"
        shutil.rmtree(tmp_path / f"killed{lives}")


def test_two_versions_are_compared_on_what_both_can_be_judged_on(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_write_page", lambda *_: None)
    folds = pd.read_parquet(paths.folds(TASK))
    late = folds.loc[folds["part"] == "test", "group_id"].unique()[:2]
    answer(skill=0.5, keep=lambda table: ~table["group_id"].isin(late))
    publish_it()
    files.write_parquet(paths.folds(TASK), folds)
    answer(skill=12)
    publish_it()
    client, params = tracking.connect(), config.load()
    one, two = (comparison.load(client, versions.get(client, f"{TASK}/{n}")) for n in "12")
    found = comparison.compare(one, two, params)
    units = folds.loc[(folds["part"] == "test") & ~folds["group_id"].isin(late), "unit_id"].nunique()
    late_units = folds.loc[folds["group_id"].isin(late), "unit_id"].nunique()
    assert (found["units"], found["left_out"]["second_alone"]) == (units, late_units)
    metric = found["metrics"]["weighted_accuracy_and_uar"]
    assert metric["better"] == "second"
    assert metric["difference"]["value"] == pytest.approx(metric["second"]["value"] - metric["first"]["value"])
    back = comparison.compare(two, one, params)["metrics"]["weighted_accuracy_and_uar"]
    assert back["better"] == "first"
    assert back["difference"]["value"] == pytest.approx(-metric["difference"]["value"])
    same = comparison.compare(one, one, params)
    assert {of["better"] for of in same["metrics"].values()} == {"neither"}
    assert same["params"] == {} == same["environment"]
    assert (found["data"]["moved"], found["data"]["second_alone"]) == (0, int(folds["group_id"].isin(late).sum()))
    assert {of["division"] for of in found["subgroups"]} == {"source", "age_group", "sex"}
    assert sum(found["decisions"].values()) == len(found["by_unit"]) == units
    page = comparison_page.render(found)
    assert "Version 2 is better" in page
    assert "src=" not in page
    assert "://" not in page
    assert page.count("<circle") >= units
    fewer = params.gate.model_copy(update={"min_groups": found["groups"] + 1})
    unclear = comparison.compare(one, two, params.model_copy(update={"gate": fewer}))
    assert {of["better"] for of in unclear["metrics"].values()} == {"too few groups"}
    assert f"On {found['groups']} groups nobody can tell" in comparison_page.headline(unclear)
    assert 'class="unclear"' in comparison_page.render(unclear)


def test_a_unit_that_the_other_was_trained_on_is_not_compared(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_write_page", lambda *_: None)
    publish_it()
    client = tracking.connect()
    one = comparison.load(client, versions.get(client, f"{TASK}/1"))
    group = one.answers.groups[0]
    heard = replace(one, folds=one.folds.assign(part=one.folds["part"].mask(one.folds["group_id"] == group, "0")))
    for first, second in ((one, heard), (heard, one)):
        paired = comparison.pair(first, second)
        assert group not in set(paired.second.groups)
        assert paired.trained == int((one.answers.groups == group).sum())
    assert comparison.data(one, heard)["moved"] == int((one.folds["group_id"] == group).sum())


def test_the_card_is_with_the_run_and_says_only_what_is_stored(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = publish_it()
    client = tracking.connect()
    version = versions.get(client, TASK)
    told = model_card.text(client, version)
    stored = tracking.fetch(client, outcome.run_id or "", model_card.CARD, tmp_path / "fetched")
    stored = stored.read_text(encoding="utf-8")
    assert stored == told
    front = yaml.safe_load(told.split("---")[1])
    found = outcome.evaluation["held_out"]
    values = {m["type"]: m["value"] for m in front["model-index"][0]["results"][0]["metrics"]}
    assert values["uar"] == round(found["uar"]["value"], 4)
    assert "Not a medical device" in told
    for word in ("Intended use", "Out of scope", "Data", "Subgroups", "Calibration", "Robustness", "limits", "Ethical",
                 "The gate's verdict", "Lineage", "Licence", "heartml audit simulated-murmur/1"):
        assert word in told
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert commit in told
    assert DATA_HASH in told
    assert f"{number_format.figure(found['uar']['value'])} ({number_format.span(found['uar'])})" in told
    assert "1 silent" in told
    assert "champion: version 1 serves" in told
    shutil.rmtree(project / "data")
    shutil.rmtree(project / "artifacts")
    assert model_card.text(client, version) == told, "a year later, elsewhere, it says the same"
    client.set_model_version_tag(TASK, "1", consent.TAG, "patient simulated-100")
    assert "withdrawn: patient simulated-100" in model_card.text(client, versions.get(client, TASK))


def test_the_card_of_a_version_without_its_files_says_what_is_not_known(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_write_page", lambda *_: None)
    outcome = publish_it()
    shutil.rmtree(project / ".heartml/mlartifacts" / (outcome.run_id or "") / "artifacts")
    client = tracking.connect()
    told = model_card.text(client, versions.get(client, TASK))
    assert "The evaluation was not kept" in told
    assert "No lineage was kept" in told
    assert "Not a medical device" in told


@pytest.mark.parametrize("hostile", ["a | b", "<script>x</script>", "line\nbreak", "[click](http://evil)", "`x`"])
def test_a_cell_of_the_card_brings_no_markup(hostile: str) -> None:
    rendered = model_card.as_html(f"---\nx: 1\n---\n\n# T\n\n> d\n\n{sections.table(('a',), [(hostile,)])}\n")
    assert "<script" not in rendered
    assert "<a " not in rendered
    assert rendered.count("<td>") == 1


def test_the_key_follows_the_content_and_nothing_else(project: Path) -> None:
    key = capture.content_key(TASK)
    os.utime(paths.model(TASK) / "model.json", (1, 1))
    assert capture.content_key(TASK) == key
    answer(skill=2, seed=9)
    assert capture.content_key(TASK) != key
