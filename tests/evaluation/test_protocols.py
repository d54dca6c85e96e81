"""The M2D protocol on simulated children in CirCor's layout: the paper's rule, twins, resuming, and what OUT holds."""

import contextlib
import csv
import io
import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from support import tiny_checkpoints
from support.workspaces import ROOT

from heartml import cli
from heartml.core import command, config, frame_store
from heartml.core.system import hashing, locks
from heartml.data.splitting import published
from heartml.evaluation.protocols import circor_m2d, cohort, fits, scoring, splits, tuned
from heartml.evaluation.protocols.scoring import paper_columns, paper_rule
from heartml.models.heads import finetune

PRESENT, UNKNOWN, ABSENT = range(3)


def run(project: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "heartml", "protocol", "circor-m2d", *map(str, arguments)]
    done = subprocess.run(command, cwd=project,
                          env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}, text=True,
                          capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def here(project: Path, *arguments: object, check: bool = True) -> tuple[int, str]:
    """The same in this process, which has its imports, without other workers: exit status and standard error."""
    for opened in (cohort.open_cohort, fits.training_data, fits._all_recordings):
        opened.cache_clear()
    with (pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as said,
          contextlib.redirect_stdout(io.StringIO())):
        patch.chdir(project)
        patch.setattr(sys, "argv", ["heartml", "protocol", "circor-m2d", *map(str, arguments)])
        for module in (circor_m2d, cohort):
            patch.setattr(module, "available_workers", lambda _: 1)
        status = command.run(cli.cli)
    assert status == 0 or not check, said.getvalue()
    return status, said.getvalue()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with parameters, a small corpus in `circor/`, and two splits whose test parts are apart."""
    from heartml.data.simulation import corpus

    root = tmp_path_factory.mktemp("protocol")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    starts = [s for s in params["search"]["initial_trials"] if "head=logistic" in s and "encoder=logspec" in s]
    networks = [s for s in params["search"]["initial_trials"] if "head=sequence" in s]
    params["search"] |= {"initial_trials": [networks[0], starts[0]], "tasks": {}}
    params["search"]["network_parameters"]["sequence"]["channels"] = 8
    params["protocol"] = {"inner_folds": 2, "networks": 1, "epochs": 1}
    params["evaluate"]["bootstrap"] = 100
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    corpus.run(root / "circor", count=40, seed=3, seconds=3.0, faults=False)
    rows = list(csv.DictReader((root / "circor/training_data.csv").open()))
    write_split(root / "a.csv", rows, 0)
    write_split(root / "b.csv", rows, 1)
    return root


def write_split(path: Path, rows: list[dict[str, str]], turn: int) -> None:
    """Every fourth child of each class is tested, with all its ids; a stranger stands there, too."""
    first, seen, lines = {}, {}, ["patient_id,part", "4711,test"]
    for row in sorted(rows, key=lambda r: r["Murmur"]):
        child = min(row["Patient ID"], row["Additional ID"] if row["Additional ID"] != "nan" else "9" * 9)
        seen.setdefault(row["Murmur"], 0)
        if child not in first:
            first[child] = "test" if seen[row["Murmur"]] % 4 == turn else "train"
            seen[row["Murmur"]] += 1
        lines.append(f"{row['Patient ID']},{first[child]}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def found(project: Path) -> dict:
    done = run(project, "circor", "--splits", "a.csv", "b.csv", "--json", "out.json")
    (project / "said").write_text(done.stdout)
    return json.loads((project / "out.json").read_text())


def test_any_present_recording_makes_the_patient_present_and_else_any_unknown() -> None:
    log_p = np.log(np.array([[.2, .1, .7], [.6, .2, .2], [.1, .1, .8], [.2, .5, .3], [.1, .2, .7]]))
    assert list(paper_rule(log_p, np.array([0, 0, 3, 3, 7]))) == [PRESENT, UNKNOWN, ABSENT]


def test_the_columns_are_the_papers() -> None:
    labels, decisions = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 2, 1, 2, 2, 0])
    free = np.array([True, True, True, True, True, False])
    said = paper_columns(labels, decisions, free)
    assert said["w_acc"] == pytest.approx((5 * 1 + 3 * 1 + 2) / (5 * 2 + 3 * 1 + 3))
    assert said["uar"] == pytest.approx((1 / 2 + 1 + 2 / 3) / 3)
    assert said["w_acc_twin_free"] == pytest.approx((5 + 3 + 2) / (10 + 3 + 2))
    assert said["recall"] == {"Present": 0.5, "Unknown": 1.0, "Absent": pytest.approx(2 / 3)}
    alone = paper_columns(labels[:1], decisions[:1], free[:1] & False)
    assert alone["recall"]["Unknown"] is None and alone["w_acc_twin_free"] is None


def test_out_holds_what_was_promised(found: dict, project: Path) -> None:
    for system in ("ensemble", "single"):
        assert {"w_acc", "uar", "w_acc_twin_free", "uar_twin_free", "recall"} <= found[system].keys()
        assert set(found[system]["recall"]) == {"Present", "Unknown", "Absent"}
        values = [split[system]["w_acc"] for split in found["splits"]]
        assert found[system]["w_acc"] == pytest.approx(np.mean(values))
        assert found[system]["sd"]["w_acc"] == pytest.approx(np.std(values, ddof=1))
    assert found["ensemble"]["outcome_cost"] > 0
    assert [split["split"] for split in found["splits"]] == ["a.csv", "b.csv"]
    assert all(split["not_here"] == 1 for split in found["splits"])
    said = (project / "said").read_text()
    assert ".832" in said and "not the paper's test parts" in said


def test_the_numbers_are_those_of_the_predictions(found: dict) -> None:
    for split in found["splits"]:
        rows = split["predictions"]
        weight = {"Present": 5, "Unknown": 3, "Absent": 1}
        won = sum(weight[r["label"]] for r in rows if r["ensemble"] == r["label"])
        assert split["ensemble"]["w_acc"] == pytest.approx(won / sum(weight[r["label"]] for r in rows))
        assert len(rows) == split["patients"]["test"]
    tested = [row["patient_id"] for split in found["splits"] for row in split["predictions"]]
    assert found["pooled"]["patients"] == len(tested) == len(set(tested))


def test_a_twin_of_a_developing_child_is_left_out_of_the_twin_free_numbers(found: dict, project: Path) -> None:
    rows = list(csv.DictReader((project / "circor/training_data.csv").open()))
    twins = [(r["Patient ID"], r["Additional ID"]) for r in rows if r["Additional ID"] != "nan"]
    assert twins
    apart = {twins[0][0]: "test", twins[0][1]: "train"}
    lines = [f"{p},{apart.get(p, part)}" for p, part in (x.split(",") for x in (project / "a.csv").read_text().split())]
    (project / "torn.csv").write_text("\n".join(lines))
    here(project, "circor", "--splits", "torn.csv", "--json", "torn.json")
    [split] = json.loads((project / "torn.json").read_text())["splits"]
    assert split["twins"] == 1
    assert [row["patient_id"] for row in split["predictions"] if row["twin"]] == [f"circor-{twins[0][0]}"]


def test_a_second_run_fits_nothing_and_says_the_same(found: dict, project: Path) -> None:
    made = {path: path.stat().st_mtime_ns for path in project.rglob("*.safetensors")}
    lost = sorted(made)[0]
    lost.unlink()                                    # as after a kill
    here(project, "circor", "--splits", "a.csv", "b.csv", "--json", "again.json")
    assert (project / "again.json").read_bytes() == (project / "out.json").read_bytes()
    again = {path: path.stat().st_mtime_ns for path in project.rglob("*.safetensors")}
    assert {path for path in made if made[path] != again[path]} == {lost}


def test_no_fit_answers_for_patients_that_it_saw(project: Path, found: dict) -> None:
    cohorts = list((project / ".heartml/protocol").glob("cohort-*"))
    assert len(cohorts) == 1
    params = config.load(project / "params.yaml")
    specs = fits.specs_of("circor-murmur", "murmur", params, 100, networks=True)
    table = next((project / ".heartml/protocol").glob("m2d-*/circor-murmur-*.parquet"))
    of_split = fits.Fits(cohorts[0], table, "circor-murmur", specs, {}, 2, 1, project)
    for job in of_split.planned():
        assert set(job.about) <= set(job.without)
        assert of_split.folds in job.without
        assert of_split.folds not in job.stacked and set(job.stacked) <= set(job.about)


@pytest.fixture(scope="module")
def with_ear(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with a tiny encoder in M2D's format, and a split with a validation part."""
    root = tmp_path_factory.mktemp("ear")
    shutil.copytree(project / "circor", root / "circor")
    file, _ = tiny_checkpoints.m2d(root)
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["encoder_parameters"]["ear"] = {"kind": "m2d", "weights": str(file), "sha256": hashing.sha256_file(file)}
    params["search"]["network_parameters"]["finetune"] = {
        "encoders": ["ear"], "recipe": "m2d_circor", "epochs": 2, "batch": 16, "training": {"chunk_s": 1.0}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    trained = iter(range(10**6))
    lines = [line.replace(",train", ",validation") if line.endswith(",train") and next(trained) % 4 == 0 else line
             for line in (project / "a.csv").read_text().splitlines()]
    (root / "c.csv").write_text("\n".join(lines) + "\n")
    return root


def test_a_fine_tuned_encoder_is_scored_by_the_paper_s_rule_with_one_command(with_ear: Path) -> None:
    arguments = ("circor", "--splits", "c.csv", "--system", "finetune", "--encoder", "ear", "--recipe", "params")
    _, said = here(with_ear, *arguments, "--json", "out.json")
    assert "finetune on ear: 0.0 GB of memory" in said and "for each of 1 trainings at once" in said
    found = json.loads((with_ear / "out.json").read_text())
    assert 0 <= found["finetune"]["uar"] <= 1 and not {"single", "ensemble"} & set(found)
    assert set(found["pooled"]) == {"patients", "finetune"}
    assert {row["finetune"] for row in found["splits"][0]["predictions"]} <= {"Present", "Unknown", "Absent"}
    [file] = (with_ear / ".heartml/protocol").glob("m2d-*/*/*.safetensors")
    made = file.read_bytes()
    file.unlink()
    here(with_ear, *arguments, "--json", "again.json")
    assert file.read_bytes() == made and (with_ear / "again.json").read_bytes() == (with_ear / "out.json").read_bytes()


def test_the_epoch_of_a_fine_tuned_network_is_chosen_by_the_published_validation_part(
    with_ear: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(with_ear)
    params = config.load()
    finetuned = tuned.of("ear", None, params.search, params)
    assert finetuned.encoder.pretrained is not None and finetuned.encoder.pretrained.takes_input
    assert finetuned.network.hyperparameters["inference_chunk_s"] == fits.CHUNK_S
    made, _ = cohort.prepare(Path("circor"), params, [finetuned.encoder])
    split = splits.read_split(Path("c.csv"), published.read_parts(Path("c.csv")), made, params, 0)
    systems = circor_m2d._Systems(("single", "finetune"), finetuned)
    [own] = circor_m2d._fits(split, made, params, 0, with_ear / "fits", systems)
    planned = {fit.spec.head: fit for fit in own.planned()}
    assert planned["sequence"].validation == frozenset() and len(planned["finetune"].validation) > 5
    data = fits.training_data(made.folder, own.table, own.name)
    developed = {data.train_set.unit_ids[u] for u in np.flatnonzero(data.train_set.parts != own.folds)}
    assert planned["finetune"].validation < developed
    given: list[NDArray[np.bool_]] = []
    monkeypatch.setattr(finetune, "fit", lambda _inputs, targets, *_more: given.append(targets.validation))
    ids = np.array(data.train_set.unit_ids)
    data.fit(finetuned.network, data.train_set.parts != own.folds, 0, np.isin(ids, list(split.validation)))
    unit = data.train_set.unit[data.train_set.recordings_of(data.train_set.parts != own.folds)]
    assert set(ids[unit[given[0]]]) == split.validation and not set(ids[unit[~given[0]]]) & split.validation


def test_the_paper_s_own_recipe_is_the_one_that_is_used_unasked(with_ear: Path, monkeypatch) -> None:
    monkeypatch.chdir(with_ear)
    params = config.load()
    numbers = tuned.of("ear", tuned.RECIPE, params.search, params).network.hyperparameters
    assert (numbers["recipe"], numbers["epochs"], numbers["batch"], numbers["rate"]) == ("m2d_circor", 50, 32, 2.5e-4)


@pytest.mark.parametrize(("arguments", "words", "status"), [
    (("--system", "finetune"), "needs an encoder: --encoder NAME", 1),
    (("--system", "finetune", "--encoder", "logspec"), "kind logspec cannot be fine-tuned", 1),
    (("--system", "finetune", "--encoder", "ear", "--recipe", "m2d"), "'m2d' is none of m2d_circor", 1),
    (("--encoder", "ear"), "add --system finetune", 2),
])
def test_what_cannot_be_fine_tuned_is_named_in_one_line(
    with_ear: Path, arguments: tuple[str, ...], words: str, status: int
) -> None:
    found, said = here(with_ear, "circor", "--splits", "c.csv", *arguments, check=False)
    assert found == status and words in said
    assert status == 2 or said.count("\n") == 1


def test_of_two_that_want_the_same_cohort_one_makes_it(
    project: Path, found: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[Future] = []
    arrived, makes, waits = threading.Event(), frame_store.write, locks.exclusive

    def prepare() -> Path:
        return cohort.prepare(Path("circor"), params)[0].folder

    def write(folder: Path, *given: object) -> None:
        late.append(both.submit(prepare))       # the other one comes while this one is at it
        arrived.wait(10)
        makes(folder, *given)

    def exclusive(lock: Path, **options: object) -> contextlib.AbstractContextManager[None]:
        arrived.set() if late else None
        return waits(lock, **options)

    monkeypatch.chdir(project)
    for module, name, stand_in in ((cohort, "available_workers", lambda _: 1), (cohort, "FOLDER", tmp_path),
                                   (frame_store, "write", write), (locks, "exclusive", exclusive)):
        monkeypatch.setattr(module, name, stand_in)
    params = config.load()
    with ThreadPoolExecutor(4) as both:
        first = prepare()
        assert [one.result() for one in late] == [first], "the other one found it"
    assert [path.name for path in tmp_path.glob("[!.]*")] == [first.name]
    assert not list(tmp_path.glob("*.tmp"))


def test_labels_of_the_test_part_change_no_decision_about_it(found: dict, project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(project / "circor", other / "circor")
    shutil.copyfile(project / "params.yaml", other / "params.yaml")
    shutil.copyfile(project / "a.csv", other / "a.csv")
    tested = {row["patient_id"].removeprefix("circor-") for row in found["splits"][0]["predictions"]}
    table = other / "circor/training_data.csv"
    rows = list(csv.DictReader(table.open()))
    (other / "circor/SHA256SUMS.txt").unlink()
    for row in rows:
        if row["Patient ID"] in tested:
            row["Murmur"] = {"Present": "Absent", "Absent": "Present"}.get(row["Murmur"], row["Murmur"])
            row["Murmur locations"] = "nan"
            (other / f"circor/training_data/{row['Patient ID']}.txt").unlink()
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    here(other, "circor", "--splits", "a.csv", "--json", "out.json")
    [turned] = json.loads((other / "out.json").read_text())["splits"]
    before = {row["patient_id"]: (row["single"], row["ensemble"]) for row in found["splits"][0]["predictions"]}
    assert {row["patient_id"]: (row["single"], row["ensemble"]) for row in turned["predictions"]} == before


@pytest.mark.parametrize(("text", "words"), [
    ("patient_id,part\n", "0 test and 0 other patients"),
    ("id,part\n1,test\n", "patient_id"),
    ("patient_id,part\n1,tset\n", "line 2"),
    ("patient_id,part\n1,test\n1,train\n", "two lines"),
])
def test_a_split_that_cannot_be_used_is_named_in_one_line(project: Path, text: str, words: str) -> None:
    (project / "bad.csv").write_text(text)
    status, said = here(project, "circor", "--splits", "bad.csv", check=False)
    assert status == 1
    assert words in said and "bad.csv" in said and said.count("\n") == 1, said


def test_one_folder_is_needed(project: Path) -> None:
    status, said = here(project, "a.csv", "--splits", "b.csv", check=False)
    assert status == 2 and "folder" in said


def test_means_leave_out_what_is_not_defined() -> None:
    runs = [{"single": {"w_acc": w, "recall": {"Unknown": r}}} for w, r in ((0.5, None), (0.7, 1.0))]
    said = scoring.mean(runs, "single")
    assert said["w_acc"] == pytest.approx(0.6) and said["recall"]["Unknown"] == 1.0
    assert said["sd"]["recall"]["Unknown"] is None
