"""Numbers predicted from encoders: nobody predicts themselves, errors are scikit-learn's, bad tables are refused."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_absolute_percentage_error
from support.publisher_files import beating_noise, wav_bytes
from support.workspaces import ROOT

from heartml.core import config
from heartml.data.datasets import LayoutError, mapping_file
from heartml.evaluation.probe import ridge
from heartml.evaluation.protocols import regression
from heartml.evaluation.protocols.cohort import ProtocolError
from heartml.metrics.bootstrap import mean_interval

PARAMS = config.load(ROOT / "params.yaml")
QUICK = PARAMS.model_copy(update={"evaluate": PARAMS.evaluate.model_copy(update={"bootstrap": 200})})


def persons(n: int = 8, each: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of which the first column tells the number and the others tell the person."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"p{k}" for k in range(n)], each)
    values = rng.normal(20, 4, n * each)
    return np.c_[values + rng.normal(0, 0.3, n * each), np.repeat(np.eye(n), each, axis=0)], values, groups


def test_what_the_vectors_tell_is_read_and_nothing_is_read_from_noise() -> None:
    vectors, values, groups = persons()
    wrong = abs(ridge.predict(vectors, values, groups) - values).mean()
    baseline = abs(ridge.mean_of_others(values, groups) - values).mean()
    assert wrong < 0.5 < baseline
    noise = np.random.default_rng(1).normal(0, 1, (len(values), 40))
    assert abs(ridge.predict(noise, values, groups) - values).mean() > 0.8 * baseline


def test_a_persons_own_numbers_do_not_change_the_prediction_for_that_person() -> None:
    vectors, values, groups = persons(6)
    mine = groups == "p2"
    before = ridge.predict(vectors, values, groups)[mine]
    other = np.where(mine, 1000.0, values)
    assert np.array_equal(before, ridge.predict(vectors, other, groups)[mine])
    assert np.array_equal(ridge.mean_of_others(values, groups)[mine], ridge.mean_of_others(other, groups)[mine])


def test_of_many_persons_several_are_left_out_together() -> None:
    groups = np.repeat([f"p{k}" for k in range(ridge.MOST_ALONE + 1)], 2)
    found = ridge.left_out(groups)
    assert len(found) == ridge.FOLDS and sorted(np.concatenate(found)) == list(range(len(groups)))
    assert all(not set(groups[rows]) & set(np.delete(groups, rows)) for rows in found)


def test_the_interval_of_a_mean_holds_it_and_is_wider_with_fewer_persons() -> None:
    values = np.random.default_rng(0).normal(5, 2, 60)

    def width(groups: np.ndarray) -> float:
        found = mean_interval(values, groups, resamples=2000, confidence=0.95, rng=np.random.default_rng(0))
        assert found.low < found.value < found.high and found.value == pytest.approx(values.mean())
        return found.high - found.low

    assert width(np.arange(60)) == pytest.approx(2 * 2.0 * values.std() / np.sqrt(60), rel=0.1)
    assert width(np.sort(np.arange(60) % 6)) > 1.2 * width(np.arange(60))


def clinic(folder: Path, lines: list[str] | None = None) -> Path:
    """Ten persons with one recording each, whose pitch is their number."""
    for number in range(10):
        pcm = beating_noise(4000 + number, 1.3).astype(float) * 0.05
        pcm += 12000 * np.sin(2 * np.pi * (200 + 60 * number) * np.arange(len(pcm)) / 4000)
        (folder / f"r{number}.wav").write_bytes(wav_bytes(pcm.astype(np.int16)))
    table = folder / "table.csv"
    own = [f"r{number}.wav,p{number},{1 + number / 2}" for number in range(10)] if lines is None else lines
    table.write_text("\n".join(["path,patient_id,value", *own]) + "\n")
    return table


def test_a_table_becomes_errors_beside_the_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = regression.run(clinic(tmp_path), ["random_conv"], QUICK, "lung")
    assert json.loads(json.dumps(found)) == found
    assert (found["recordings"], found["persons"], found["fits"]) == (10, 10, "one person")
    values = 1 + np.arange(10) / 2
    baseline = (values.sum() - values) / 9
    assert found["baseline"]["mae"]["value"] == pytest.approx(mean_absolute_error(values, baseline))
    assert found["baseline"]["mape"]["value"] == pytest.approx(100 * mean_absolute_percentage_error(values, baseline))
    kept = next(row for row in found["encoders"] if row["pooling"] == "mean")
    assert kept["against_baseline"]["high"] < 0       # the pitch is a band of its own
    assert kept["mae"]["value"] - found["baseline"]["mae"]["value"] == pytest.approx(kept["against_baseline"]["value"])
    with redirect_stdout(io.StringIO()) as said:
        regression.show(found)
    assert "10 recordings of 10 persons; one person is left out of each fit" in said.getvalue()
    zero = regression._errors(np.array([0.0, 1.0]), np.array([1.0, 1.0]), np.array(["a", "b"]), QUICK)
    assert zero["mape"] is None and zero["mae"]["value"] == 0.5


@pytest.mark.parametrize(("lines", "words"), [
    (["r0.wav,p0,2,5"], "line 2: more cells"), (["r0.wav,p0,tall"], "line 2: value 'tall' is no number"),
    (["r0.wav,p0,"], "line 2: value '' is no number"), (["r0.wav,p0,nan"], "is no number"),
    (["r0.wav,p0,1", "../table.csv,p1,2"], "line 3: path '../table.csv': a link that leads out"),
    (["none.wav,p0,1"], "line 2: path 'none.wav': not a file"), (["table.csv,p0,1"], "line 2: "),
    (["r0.wav,unknown,1"], "line 2: 'unknown' is no id"), (["r0.wav,p0,1", "r1.wav,p1,2"], "2 persons, and at least 5"),
    (["r0.wav,p1,1", "r1.wav,P1,2"], "line 2: id 'p1' here, 'P1' at line 3: perhaps one person"),
    (["r0.wav,7,1", "r1.wav,07,2"], "line 2: id '7' here, '07' at line 3"),
    (["r0.wav,p0,1", "r0.wav,p1,2"], "line 3: 'r0.wav' has the samples of line 2"),
    (["r0.wav,p0,1", "r0.wav,,1"], "line 3: 'r0.wav' has the samples of line 2"),
    (["r0.wav,p0,1e300"], "line 2: value '1e300' is no number"),
])
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, lines: list[str], words: str) -> None:
    table = clinic(tmp_path, lines)
    with pytest.raises(ProtocolError, match="table") as told:
        regression.run(table, ["random_conv"], QUICK, "lung")
    assert words in str(told.value) and "\n" not in str(told.value)


MAPPING = """title: T
citation: C
licence: CC0-1.0
table: recordings.csv
columns: {path: file}
tasks:
  fev: {column: fev, kind: KIND, classes: [low, high]}
"""


@pytest.mark.parametrize(("kind", "words"), [
    ("regression", "search, ensemble and gate decide between classes"), ("ranking", "'ranking' is no kind of task"),
])
def test_a_task_of_numbers_is_refused_with_the_reason(tmp_path: Path, kind: str, words: str) -> None:
    path = tmp_path / "clinic.yaml"
    path.write_text(MAPPING.replace("KIND", kind))
    with pytest.raises(LayoutError) as told:
        mapping_file.read(path)
    assert f"tasks.fev.kind: {words}" in str(told.value)
    path.write_text(MAPPING.replace("KIND", "classification"))
    assert "fev" in mapping_file.read(path)[1].tasks
