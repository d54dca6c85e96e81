"""Files of weights: the named bytes or none, no code is run, and what fails leaves nothing behind."""

import argparse
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from heartml.core.system.hashing import sha256_file
from heartml.models.encoders import weight_files
from heartml.models.encoders.weight_files import WeightsError

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def saved(file: Path, content: object = None) -> Path:
    torch.save(TENSORS if content is None else content, file)
    return file


class Harmful:
    """A pickle of this makes a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("content", [TENSORS, {"model": TENSORS, "args": None}, {"state_dict": TENSORS, "epoch": 3},
                                     {"model": TENSORS, "args": argparse.Namespace(epochs=300)}])
def test_every_form_of_a_checkpoint_gives_its_tensors(tmp_path: Path, content: object) -> None:
    found = weight_files.tensors_of(saved(tmp_path / "w.pth", content))
    assert set(found) == {"a", "b"}
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


def test_what_is_kept_is_safetensors_under_the_publisher_s_hash(tmp_path: Path, cache: Path) -> None:
    file = saved(tmp_path / "w.pth", {**TENSORS, "shared": TENSORS["a"][:1]})
    digest = sha256_file(file)
    kept = weight_files.keep(digest, weight_files.read(file, digest))
    assert kept == cache / "weights" / f"{digest}.safetensors"
    assert torch.equal(load_file(kept)["a"], TENSORS["a"])
    first = kept.read_bytes()
    file.unlink()
    assert torch.equal(weight_files.read(file, digest)["b"], TENSORS["b"]), "the publisher's file is not needed again"
    kept.unlink()
    weight_files.keep(digest, {name: TENSORS["a"][:1] if name == "shared" else TENSORS[name]
                               for name in ("shared", "b", "a")})
    assert kept.read_bytes() == first


def test_a_damaged_file_of_the_cache_is_made_anew(tmp_path: Path) -> None:
    file = saved(tmp_path / "w.pth")
    digest = sha256_file(file)
    kept = weight_files.keep(digest, TENSORS)
    kept.write_bytes(kept.read_bytes()[:-5])
    assert torch.equal(weight_files.read(file, digest)["a"], TENSORS["a"])


def test_weights_that_a_model_offers_are_read_from_there(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "held.safetensors")
    weight_files.offer("1" * 64, tmp_path / "held.safetensors")
    assert set(weight_files.read(tmp_path / "nowhere.pth", "1" * 64)) == {"a", "b"}


def test_other_bytes_than_the_named_ones_are_refused(tmp_path: Path, cache: Path) -> None:
    file = saved(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=f"its SHA-256 is {sha256_file(file)}, not {'0' * 64}"):
        weight_files.read(file, "0" * 64)
    with pytest.raises(WeightsError, match="these weights are not here"):
        weight_files.read(tmp_path / "gone.pth", "0" * 64)
    assert not cache.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_runs_code_is_not_read(tmp_path: Path) -> None:
    made = tmp_path / "made-by-the-pickle"
    torch.save({"model": Harmful(made)}, tmp_path / "zip.pth")
    for protocol in (2, 4):
        (tmp_path / f"plain{protocol}.pth").write_bytes(pickle.dumps({"model": Harmful(made)}, protocol))
    for name in ("zip.pth", "plain2.pth", "plain4.pth"):
        with pytest.raises(WeightsError, match=rf"{name}: holds Python objects that could run code"):
            weight_files.tensors_of(tmp_path / name)
    assert not made.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.load(tmp_path / "zip.pth", weights_only=False)
    assert made.exists(), "the pickle does nothing, so this test would not see it run"


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_file_cut_short_or_of_something_else_is_named(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(TENSORS, file)
    whole = file.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:-1], b"", b"\0" * 64, b"no weights", whole[:30]):
        file.write_bytes(data)
        with pytest.raises(WeightsError, match=rf"{name}: cut short, or no file of weights.*\. Fetch it again"):
            weight_files.tensors_of(file)


def test_a_file_without_tensors_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no tensors by name"):
        weight_files.tensors_of(saved(tmp_path / "w.pth", {"epoch": 3}))


def test_what_was_said_of_weights_is_in_the_dvc_file_beside_them(tmp_path: Path) -> None:
    (tmp_path / "mn.dvc").write_text("meta: {licence: MIT, redistribute: true}\nouts:\n- {md5: aa, path: mn.pt}\n")
    assert weight_files.notes(tmp_path / "mn.pt") == {"licence": "MIT", "redistribute": True}
    assert weight_files.notes(tmp_path / "other.pt") == {}
    (tmp_path / "broken.dvc").write_text("outs: 3\n")
    with pytest.raises(WeightsError, match=r"broken\.dvc: no DVC file"):
        weight_files.notes(tmp_path / "mn.pt")
