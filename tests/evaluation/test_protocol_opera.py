"""The OPERA benchmark's probe, splits and table, on small collections in their publishers' layouts."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import support.lung_layouts as made
from support.workspaces import ROOT

from heartml import cli
from heartml.core import command, config
from heartml.evaluation.protocols import opera
from heartml.evaluation.protocols.opera import cases, linear, splits, table, tasks, vectors
from heartml.evaluation.protocols.opera.cases import LeftOutError
from heartml.evaluation.protocols.opera.linear import Recipe
from heartml.models import encoders

PARAMS = config.load(ROOT / "params.yaml")
TASKS = {task.name: task for task in tasks.TASKS}
COPD, BREATHS, KAUH = TASKS["icbhi-copd"], TASKS["icbhi-breaths"], TASKS["kauh-obstructive"]


# The probe


def separable(seed: int = 0) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 120)
    features = rng.normal(0, 1, (120, 4)) + 3 * labels[:, None]
    part = np.arange(120) % 3
    return features, labels, {"train": part == 0, "validation": part == 1, "test": part == 2}


def probed(features: np.ndarray, labels: np.ndarray, rows: dict[str, np.ndarray], recipe: Recipe, seed: int = 0
           ) -> np.ndarray:
    return linear.probe(features, labels, rows["train"], rows["validation"], rows["test"], 2, recipe, seed)


def test_what_a_line_separates_is_told_apart_and_a_seed_gives_the_same_bits() -> None:
    features, labels, rows = separable()
    recipe = Recipe(4, 64)        # the benchmark's rate is small: a few hundred steps are needed
    found = probed(features, labels, rows, recipe)
    assert found.shape == (40, 2) and found.sum(1) == pytest.approx(1)
    assert linear._auc(labels[rows["test"]], found) > 0.95
    short = [probed(features, labels, rows, Recipe(32, 2), seed) for seed in (0, 0, 1)]
    assert np.array_equal(short[0], short[1]) and not np.array_equal(short[0], short[2])


def adam(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, epochs: int) -> np.ndarray:
    """The benchmark's recipe with one batch an epoch, written out: `[classes, features + 1]`, the biases last."""
    x, y = np.c_[features, np.ones(len(features))], np.eye(2)[labels]
    weights, first, second = np.c_[weights, np.zeros(2)], 0.0, 0.0
    for step in range(1, epochs + 1):
        p = np.exp(x @ weights.T)
        slope = (p / p.sum(1, keepdims=True) - y).T @ x / len(x) + 2 * 1e-5 * weights
        slope *= min(1.0, 1.0 / np.linalg.norm(slope))
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        upwards = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        weights = weights - 1e-4 * 0.97 ** (step - 1) * upwards
    return weights


def test_the_recipe_is_the_benchmarks() -> None:
    import torch

    features, labels, rows = separable(3)
    features *= 20                                                  # slopes are clipped
    start = torch.empty(2, 4).normal_(0, linear.DEVIATION, generator=torch.Generator().manual_seed(5)).numpy()
    found = probed(features, labels, rows, Recipe(1000, 30, validated_every=30), seed=5)
    weights = adam(features[rows["train"]], labels[rows["train"]], start, 30)
    odds = np.exp(np.c_[features[rows["test"]], np.ones(40)] @ weights.T)
    assert found == pytest.approx(odds / odds.sum(1, keepdims=True), abs=1e-4)


def test_the_epoch_is_chosen_on_the_validation_part() -> None:
    features, labels, rows = separable(1)
    turned = np.where(rows["validation"], 1 - labels, labels)       # learning makes it worse: the first epoch is kept
    kept = probed(features, turned, rows, Recipe(32, 40))
    assert np.array_equal(kept, probed(features, turned, rows, Recipe(32, 1)))
    assert not np.array_equal(kept, probed(features, labels, rows, Recipe(32, 40)))


# Which recordings, and which part they are in


def test_the_benchmark_takes_good_shallow_coughs_of_people_with_a_good_heavy_one(tmp_path: Path) -> None:
    read, refused = cases.read(TASKS["coswara-smoker"], made.coswara(tmp_path))
    assert {(case.group, case.label) for case in read} == {("coswara-bjA2KpSxne", "Smoker"),
                                                           ("coswara-htQzROl26O", "Non-smoker")}
    assert refused == {} and all(case.source_file.endswith("cough-shallow.wav") for case in read)


def test_the_benchmark_takes_recordings_in_which_a_cough_was_found(tmp_path: Path) -> None:
    read, _ = cases.read(TASKS["coughvid-covid"], made.coughvid(tmp_path))
    assert sorted((Path(case.source_file).stem, case.label) for case in read) == [
        ("00039425-7f3a", "Healthy"), ("0028b68c-aca4", "COVID-19"), ("0037f67c-0d6f", "Healthy")]


def test_every_breath_is_a_case_of_its_own(tmp_path: Path) -> None:
    read, _ = cases.read(BREATHS, made.icbhi(tmp_path))
    assert [(case.span_s, case.label) for case in read if "104_1b1_Ar" in case.source_file] == [
        ((0.0, 0.4), "crackle"), ((0.4, 0.8), "wheeze"), ((0.8, 1.2), "normal")]
    assert len({case.name for case in read}) == len(read) == 12


def test_a_breath_ends_with_its_sound_and_one_that_begins_later_is_counted(tmp_path: Path) -> None:
    [breaths] = made.icbhi(tmp_path).rglob("104_1b1_Ar*.txt")
    breaths.write_text("0.0\t0.4\t1\t0\n0.9\t60.0\t0\t1\n5.0\t6.0\t1\t0\n")
    read, left_out = cases.read(BREATHS, tmp_path)
    own = [case for case in read if "104_1b1_Ar" in case.source_file]
    assert [case.label for case in own] == ["crackle", "wheeze"]
    assert own[1].span_s == (0.9, 1.3) and left_out == {"breath after the end of the sound": 1}


def test_one_sound_with_two_labels_is_no_case(tmp_path: Path) -> None:
    made.kauh(tmp_path)
    labels = {case.path: case.label for case in cases.read(KAUH, tmp_path)[0]}
    one, two = next((a, b) for a in labels for b in labels if labels[a] != labels[b])
    two.write_bytes(one.read_bytes())
    read, left_out = cases.read(KAUH, tmp_path)
    assert not {one, two} & {case.path for case in read} and left_out == {"one sound with two labels or persons": 1}


def test_a_file_that_cannot_be_read_is_counted(tmp_path: Path) -> None:
    (made.icbhi(tmp_path) / "audio_and_txt_files" / "102_1b1_Ar_sc_Meditron.wav").write_bytes(b"no sound")
    read, refused = cases.read(COPD, tmp_path)
    assert sum(refused.values()) == 1 and not any("102" in case.source_file for case in read)


def test_without_a_published_split_no_person_is_in_two_parts(tmp_path: Path) -> None:
    read, _ = cases.read(COPD, made.icbhi_cohort(tmp_path / "icbhi"))
    split = splits.of(COPD, tmp_path, tmp_path / "icbhi", read, 42)
    assert split.kind == "drawn" and "no ICBHI_challenge_train_test.txt" in split.words
    of_group = pd.DataFrame([(case.group, part) for case, part in split.parts.items()], columns=["group", "part"])
    assert (of_group.groupby("group")["part"].nunique() == 1).all()
    assert set(of_group["part"]) == {"train", "validation", "test"} and len(split.parts) == len(read)


def write_official(folder: Path, read: list[cases.Case], tests: tuple[str, ...]) -> None:
    lines = [f"{Path(case.source_file).stem}\t{'test' if Path(case.source_file).stem.startswith(tests) else 'train'}\n"
             for case in read if not Path(case.source_file).stem.startswith("219_")]
    (folder / "ICBHI_challenge_train_test.txt").write_text("".join(dict.fromkeys(lines)))


def test_the_published_split_is_used_where_it_lies(tmp_path: Path) -> None:
    place = made.icbhi_cohort(tmp_path / "icbhi")
    read, _ = cases.read(COPD, place)
    write_official(place, read, ("200_", "201_", "202_1"))
    split = splits.of(COPD, tmp_path, place, read, 42)
    tests = {Path(case.source_file).stem.split("_Al")[0] for case, part in split.parts.items() if part == "test"}
    assert split.kind == "published" and tests == {"200_1b1", "200_2b1", "201_1b1", "201_2b1", "202_1b1"}
    assert split.crossing == {"icbhi-202"}                         # as the real list does with two patients
    counts = pd.Series(split.parts.values()).value_counts().to_dict()
    assert counts == {"train": 26, "validation": 7, "test": 5}     # a fifth of training; 219 is in no line


def kauh_split(folder: Path, parts: np.ndarray) -> tuple[Path, list[cases.Case]]:
    place = made.kauh(folder / "KAUH")
    read, _ = cases.read(KAUH, place)
    (folder / "feature/kauh_eval").mkdir(parents=True)
    names = np.array([f"datasets/KAUH/AudioFiles/{Path(case.source_file).name}" for case in read])
    np.save(folder / "feature/kauh_eval/sound_dir_loc_subset.npy", names)
    np.save(folder / "feature/kauh_eval/train_test_split.npy", parts)
    return place, read


def test_the_benchmarks_own_arrays_are_a_published_split(tmp_path: Path) -> None:
    place, read = kauh_split(tmp_path, np.array(["train", "val", "test"] * 3))
    split = splits.of(KAUH, tmp_path, place, read, 42)
    assert split.kind == "published"
    assert [split.parts[case] for case in read] == ["train", "validation", "test"] * 3


@pytest.mark.parametrize(("parts", "words"), [
    (np.array(["train", "test"] * 4), "8 parts of 9 recordings"),
    (np.array(["train", "test", "held out"] * 3), "'held out' is none of"),
    (np.array([["train"], None] * 4 + [None], object), "no array of texts"),
    ({"parts": np.array(["train"])}, "no array of texts"),
])
def test_arrays_that_are_no_split_leave_the_task_out(
    tmp_path: Path, parts: np.ndarray | dict[str, np.ndarray], words: str
) -> None:
    place, read = kauh_split(tmp_path, parts if isinstance(parts, np.ndarray) else np.array(["train"] * 9))
    if not isinstance(parts, np.ndarray):
        with (tmp_path / "feature/kauh_eval/train_test_split.npy").open("wb") as file:      # an archive by another name
            np.savez(file, **parts)
    with pytest.raises(LeftOutError, match=words):
        splits.of(KAUH, tmp_path, place, read, 42)


def test_a_recording_that_the_arrays_name_twice_is_in_one_part(tmp_path: Path) -> None:
    place, read = kauh_split(tmp_path, np.array(["train", "val", "test"] * 3))
    names = tmp_path / "feature/kauh_eval/sound_dir_loc_subset.npy"
    listed = np.load(names)
    np.save(names, np.array([listed[0], listed[0], *listed[2:]]))
    with pytest.raises(LeftOutError, match="is in two parts, train and validation"):
        splits.of(KAUH, tmp_path, place, read, 42)


def test_what_a_list_calls_unused_is_no_training(tmp_path: Path) -> None:
    place = made.icbhi_cohort(tmp_path / "icbhi")
    read, _ = cases.read(COPD, place)
    write_official(place, read, ("200_", "201_", "202_1"))
    official = place / "ICBHI_challenge_train_test.txt"
    official.write_text("".join(line.replace("train", "unused") if line.startswith("202_") else line
                                for line in official.read_text().splitlines(keepends=True)))
    split = splits.of(COPD, tmp_path, place, read, 42)
    assert split.crossing == frozenset()
    assert set(split.parts.values()) == {"train", "validation", "test"}


# All of it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("opera")
    place = made.icbhi_cohort(root / "icbhi")
    read, _ = cases.read(COPD, place)
    write_official(place, read, ("200_", "201_", "202_1", "203_", "204_"))
    made.kauh(root / "kauh")
    return root


def test_one_row_for_each_encoder_and_pooling_beside_the_published_ones(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = PARAMS.model_copy(update={"evaluate": PARAMS.evaluate.model_copy(update={"bootstrap": 50})})
    found = opera.run(folder, ["random_conv"], params, 2)
    assert json.loads(json.dumps(found)) == found
    assert set(found["tasks"]) == {"icbhi-copd", "icbhi-breaths"}
    assert found["left_out"]["coswara-sex"] == f"no folder coswara/ in {folder}"
    assert "two classes are needed" in found["left_out"]["kauh-obstructive"]
    one = found["tasks"]["icbhi-copd"]
    assert [(row["encoder"], row["pooling"]) for row in one["encoders"]] == [("random_conv", "average"),
                                                                            ("random_conv", "mean")]
    scores = one["encoders"][1]["scores"]["macro_auc"]
    assert scores["mean"] == pytest.approx(np.mean(scores["seeds"])) and len(scores["seeds"]) == 2
    assert scores["low"] <= scores["value"] <= scores["high"]
    assert one["parts"]["test"] == {"cases": 9, "persons": 5} and one["test_persons_in_training"] == 1
    assert one["encoders"][0]["features"] < one["encoders"][1]["features"]
    assert set(found["tasks"]["icbhi-breaths"]["encoders"][0]["scores"]) == {"icbhi_score", "macro_auc"}
    with redirect_stdout(io.StringIO()) as said:
        table.show(found)
    for words in ("OPERA-CT, published", "0.855", "published split ICBHI_challenge_train_test.txt", "new persons",
                  "coswara-sex is left out"):
        assert words in said.getvalue()

    def no_more(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(encoders, "frames_of", no_more)
    assert opera.run(folder, ["random_conv"], params, 2) == found           # what was pooled is read
    next(iter((tmp_path / vectors.FOLDER).rglob("*.safetensors"))).unlink()
    with pytest.raises(AssertionError, match="encoded again"):
        opera.run(folder, ["random_conv"], params, 2)


def test_a_folder_without_any_collection_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.setattr("sys.argv", ["heartml", "protocol", "opera", ".", "--encoders", "logspec random_conv"])
    assert command.run(cli.cli) == 1
    said = capsys.readouterr().err
    assert "no task of the benchmark can be done (coughvid-covid: no folder coughvid/" in said
    assert "Traceback" not in said and said.count("\n") == 1
