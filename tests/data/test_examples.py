"""The ten patients of `examples/patients` are the simulator's, and held out; the made-up collection is one."""

from pathlib import Path

import numpy as np
import pytest
from support import example_scripts
from support.workspaces import ROOT

from heartml.audio import sound_files
from heartml.core import config
from heartml.export import page
from heartml.inference import inputs

make_patients = example_scripts.load("make_patients")


def test_two_of_the_patients_made_anew_are_the_same_samples() -> None:
    found = list(make_patients.visits())
    assert (make_patients.FOLDER / make_patients.LABELS).read_text() == make_patients.labels(found)
    for visit in (found[0], found[-1]):
        for one in make_patients.recordings(visit):
            stored = sound_files.read(make_patients.FOLDER / f"{one.name}.flac")
            assert stored.sample_rate_hz == 4000
            assert np.array_equal(stored.pcm, one.pcm), one.name


def test_ten_patients_are_there_with_every_file_and_are_small() -> None:
    files = sorted(make_patients.FOLDER.glob("*.flac"))
    table = inputs.gather([make_patients.FOLDER / make_patients.LABELS])
    assert sorted(item.path for item in table) == files
    assert len({item.patient_id for item in table}) == sum(make_patients.WANTED.values()) == 10
    assert sum(path.stat().st_size for path in make_patients.FOLDER.iterdir()) < 2_000_000
    by_name = {item.path: (item.patient_id, item.location) for item in inputs.gather([make_patients.FOLDER])}
    assert by_name == {item.path: (item.patient_id, item.location) for item in table}


def test_no_model_of_the_demo_has_heard_them() -> None:
    params = config.load(ROOT / "params.yaml")
    others = {params.simulate.seed, page._EXAMPLES_SEED, example_scripts.load("own_collection")._SEED}
    assert make_patients.SEED not in others


@pytest.mark.parametrize("classes", [7])
def test_a_made_up_collection_has_its_classes(tmp_path: Path, classes: int) -> None:
    made = example_scripts.load("own_collection")
    made.write(tmp_path / "a", classes, classes)
    rows = (tmp_path / "a" / "recordings.csv").read_text().splitlines()[1:]
    assert {row.split(",")[2] for row in rows} == set(made.CLASSES[:classes])
    quiet, loud = (sound_files.read(tmp_path / "a" / rows[2 * k].split(",")[0]) for k in (0, 1))
    assert quiet.seconds > 4 < loud.seconds
