"""Paths and links that lead out of a folder: nothing outside is read, written or shown."""

import csv
from pathlib import Path

import pandas as pd
import pytest
import support.publisher_layouts as made
import yaml
from support import publisher_files, tiny_models
from support.workspaces import Workspace

from heartml.core import paths
from heartml.core.system import files, hashing
from heartml.data import datasets, ingest
from heartml.data.datasets import LayoutError, circor, pascal
from heartml.inference import inputs
from heartml.registry import model_files
from heartml.registry.versions import RegistryError

SECRET = "the-secret-of-another-folder"


# Paths that leave the folder
def secret(folder: Path) -> Path:
    """A table, a sound and a text beside the publisher's folder that nobody offered."""
    folder.mkdir()
    (folder / "secret.wav").write_bytes(publisher_files.wav_bytes(publisher_files.beating_noise(77)))
    (folder / "secret.csv").write_text(f"fname,label\nset_a/{SECRET}__201101010000.wav,normal\n")
    (folder / "secret.txt").write_text(f"{SECRET}\n0.0\t0.1\t1\n#Age: {SECRET}\n")
    return folder


def test_what_leads_out_of_an_ingested_folder_is_quarantined_and_never_read(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.root)
    outside, clinic = secret(tmp_path / "outside"), made.generic(tmp_path / "clinic", "clinic")
    (clinic / "linked").symlink_to(outside)
    (clinic / "link.wav").symlink_to(outside / "secret.wav")
    attacks = ["../outside/secret.wav", str(outside / "secret.wav"), "linked/secret.wav", "link.wav",
               "sounds/../../outside/secret.wav", "..\\outside\\secret.wav"]
    with (clinic / "recordings.csv").open("a") as table:
        head = next(csv.reader((clinic / "recordings.csv").open()))
        for number, attack in enumerate(attacks):
            row = {"file": attack, "subject": f"x{number}", "murmur": "no"}
            table.write(",".join(row.get(name, "") for name in head) + "\n")
    outcome = ingest.run("generic", clinic)
    assert outcome.quarantined["outside"] == len(attacks) - 1      # two are one path
    kept = pd.read_parquet(paths.RECORDINGS)
    assert len(kept) == outcome.recordings > 0
    assert hashing.sha256_file(outside / "secret.wav") not in set(kept["source_sha256"])


@pytest.mark.parametrize("suffix", [".hea", ".tsv", ".txt", "training_data.csv"])
def test_a_publishers_side_file_that_is_a_link_to_elsewhere_is_not_read(suffix: str, tmp_path: Path) -> None:
    folder, outside = publisher_files.circor(tmp_path / "publisher"), secret(tmp_path / "outside")
    name = {".txt": "training_data/24.txt"}.get(suffix, f"training_data/24_AV{suffix}")
    link = folder / (suffix if suffix.endswith("csv") else name)
    link.unlink()
    link.symlink_to(outside / "secret.txt")
    if suffix.endswith("csv"):
        with pytest.raises(LayoutError, match="leads out of the folder") as refused:
            circor.read(folder)
        assert SECRET not in str(refused.value)
        return
    (folder / "SHA256SUMS.txt").unlink()
    layout = circor.read(folder)
    assert "outside" in set(layout.refused["reason"])
    assert SECRET not in "".join(table.to_csv() for table in (layout.recordings, layout.annotations, layout.refused))


def test_a_publishers_table_that_is_a_link_to_elsewhere_is_not_read(tmp_path: Path) -> None:
    folder, outside = publisher_files.pascal(tmp_path / "publisher"), secret(tmp_path / "outside")
    (folder / "set_a.csv").unlink()
    (folder / "set_a.csv").symlink_to(outside / "secret.csv")
    with pytest.raises(LayoutError, match="leads out of the folder") as refused:
        pascal.read(folder)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("table", ["../outside/secret.csv", "/etc/passwd", "..\\x.csv", "x/../../y.csv", "a\x00b",
                                   "x" * 5000])
def test_a_mapping_names_no_table_outside(table: str, tmp_path: Path) -> None:
    secret(tmp_path / "outside")
    clinic = made.generic(tmp_path / "clinic", "clinic")
    told = yaml.safe_load((clinic / "clinic.yaml").read_text()) | {"table": table}
    (clinic / "clinic.yaml").write_text(yaml.safe_dump(told))
    with pytest.raises(LayoutError, match=r"table|YAML") as refused:
        source, root = datasets.open_dataset("generic", clinic)
        source.read(root)
    assert SECRET not in str(refused.value)


def test_a_table_for_predict_may_name_any_file_and_shows_nothing_of_what_is_no_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heartml.inference import output, predict

    outside = secret(tmp_path / "outside")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("visits.csv").write_text(f"path\n../outside/secret.wav\n{outside}/secret.wav\n../outside/secret.txt\n/etc/passwd\n")
    items = inputs.gather([Path("visits.csv")])
    heard = [predict.read_recording(item, tiny_models.PARAMS)[0] for item in items]
    assert [h.fault is None for h in heard] == [True, True, False, False]
    told = "".join(output.fault_line(h) for h in heard)
    assert SECRET not in told and "root:" not in told


# A hostile model in the registry
@pytest.mark.parametrize("place", ["../outside", "/etc", "artifacts/../../outside", "linked", "a\x00b"])
def test_a_stored_model_names_no_ensemble_outside_of_it(place: str, tmp_path: Path) -> None:
    outside = secret(tmp_path / "outside")
    stored = tmp_path / "stored"
    stored.mkdir()
    (stored / "linked").symlink_to(outside)
    flavour = {"python_function": {"artifacts": {"model": {"path": place}}}}
    (stored / "MLmodel").write_text(yaml.safe_dump({"flavors": flavour}))
    with pytest.raises(RegistryError, match=r"outside of it|no stored model"):
        model_files.ensemble_folder(stored)


# Files on the way
def test_a_link_in_the_way_of_a_temporary_file_is_not_written_through(tmp_path: Path) -> None:
    victim, target = tmp_path / "victim", tmp_path / "answers.csv"
    victim.write_text("mine")
    with files.replacing(target) as temporary:
        temporary.touch()
    target.unlink()
    temporary.symlink_to(victim)      # the name that this thread uses
    files.write_json(target, {"a": 1})
    assert victim.read_text() == "mine"
    assert not target.is_symlink()
    assert files.read_json(target) == {"a": 1}
