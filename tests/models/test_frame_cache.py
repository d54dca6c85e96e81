"""The features stage: the same bytes however often it was interrupted; one more recording is one recording's work."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from support import fault_injection, tiny_checkpoints
from support.workspaces import Workspace

from heartml.audio import sound_files
from heartml.core import config, frame_store, paths
from heartml.core.frame_store import Frames, FramesError
from heartml.core.system import files, hashing, parallel
from heartml.models import encoders, frame_cache
from heartml.stages import features

ROOT = Path(__file__).parents[2]
TASK = "simulated-murmur"


def add_recording(seed: int, seconds: float = 2.0, rate_hz: int = 4000) -> str:
    rng = np.random.default_rng(seed)
    pcm = (rng.normal(0, 2000, int(seconds * rate_hz)) * (1 + np.sin(np.arange(int(seconds * rate_hz)) / 300))).astype(
        np.int16)
    samples = sound_files.Samples(pcm, rate_hz)
    sound_files.write_flac(paths.audio(samples.recording_id), samples)
    return samples.recording_id


def use(recording_ids: list[str]) -> None:
    table = pd.DataFrame(dict.fromkeys(("recording_id", "unit_id", "group_id"), recording_ids))
    files.write_parquet(paths.folds(TASK), table.assign(label="Absent", part="0").astype("string"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve recordings, two of them short, one at another rate, in the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    lengths = [2.0, 1.5, 0.03, 3.3, 2.0, 0.3, 5.1, 4.9, 2.2, 1.0, 1.1]
    use([*[add_recording(i, s) for i, s in enumerate(lengths)], add_recording(99, 2.0, 44100)])
    return tmp_path


def declare_checkpoints(project: Path) -> None:
    """Write a tiny checkpoint of each pre-trained kind, and its section into the project's params.yaml."""
    text, sections = (project / "params.yaml").read_text(), tiny_checkpoints.sections(project)
    lines = "".join(f"  {kind}: {json.dumps(values)}\n" for kind, values in sections.items())
    text = re.sub("^  heart: .*\n(    .*\n)*", "", text, flags=re.MULTILINE)      # the one that ships with the project
    (project / "params.yaml").write_text(re.sub("^(encoder_parameters:.*\n)", rf"\1{lines}", text, flags=re.MULTILINE))


def output(encoder: str = "logspec") -> str:
    return hashing.sha256_folder(paths.features(TASK, encoder))


def test_the_space_that_frames_take_is_told_before_it_is_used(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    features.run(TASK, "logspec")
    assert "are free" not in capsys.readouterr().err, "little is not told"
    shutil.rmtree(paths.cache() / "features")
    monkeypatch.setattr(frame_cache, "TOLD_BYTES", 1)
    free = SimpleNamespace(free=2_000_000_000)
    monkeypatch.setattr("heartml.models.frame_cache.shutil.disk_usage", lambda _: free)
    features.run(TASK, "logspec")
    told = capsys.readouterr().err
    assert "logspec: frames of 12 recordings, about 0.00 GB" in told and "2.0 GB are free" in told
    shutil.rmtree(paths.cache() / "features")
    free.free = 1000
    with pytest.raises(frame_cache.NoSpace, match="HEARTML_CACHE_DIR"):
        features.run(TASK, "logspec")
    left = list((paths.cache() / "features").rglob("*.npy"))
    assert len(left) == frame_cache.SAMPLED, "the rest was not begun"


@pytest.mark.parametrize("encoder", sorted(encoders.ENCODERS))
def test_frames_of_every_recording_come_out(project: Path, encoder: str) -> None:
    declare_checkpoints(project)
    if encoder not in config.load().encoder_parameters:
        pytest.skip(f"left out: the libraries of {encoder} are not here")
    features.run(TASK, encoder)
    packed = Frames.open(paths.features(TASK, encoder))
    spec = encoders.spec(encoder, config.load())
    loaded = encoders.load(spec)
    assert packed.dim == loaded.dim
    assert packed.frame_rate_hz == loaded.frame_rate_hz
    assert encoders.EncoderSpec.from_json(packed.encoder) == spec
    wanted = pd.read_parquet(paths.folds(TASK))["recording_id"]
    assert set(packed.recording_ids) == set(wanted)
    for recording_id in wanted:
        samples = sound_files.read(paths.audio(recording_id))
        own = encoders.frames_of(loaded, spec, samples.floats, samples.sample_rate_hz)
        assert np.array_equal(packed[recording_id], own.astype(np.float32))
        assert packed[recording_id].dtype == np.float32


def test_order_and_neighbours_do_not_show_in_the_bytes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features.run(TASK, "logspec")
    first = output()
    use(pd.read_parquet(paths.folds(TASK))["recording_id"].tolist()[::-1])
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(project / "elsewhere"))
    features.run(TASK, "logspec")
    assert output() == first


def test_the_number_of_workers_does_not_show_in_the_bytes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features.run(TASK, "random_conv")
    spec = encoders.spec("random_conv", config.load())
    monkeypatch.setattr(frame_cache, "MOST_WITHOUT_WORKERS", 0)
    monkeypatch.setattr(parallel, "available_workers", lambda _: 2)
    other = frame_cache.Store(project / "other")
    recording_ids = pd.read_parquet(paths.folds(TASK))["recording_id"].tolist()
    frame_cache.encode(recording_ids, spec, other, "cpu")
    mine = frame_cache.Store.of(spec, frame_cache.device())
    if frame_cache.device() == "cpu":
        theirs, own = other.view(recording_ids), mine.view(recording_ids)
        assert all(theirs[i].tobytes() == own[i].tobytes() for i in recording_ids)


def test_one_more_recording_costs_one_recordings_work(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features.run(TASK, "logspec")
    encoded = []
    real = frame_cache.encode
    monkeypatch.setattr(features, "encode", lambda ids, *rest: (encoded.extend(ids), real(ids, *rest)))
    new = add_recording(1000)
    use([*pd.read_parquet(paths.folds(TASK))["recording_id"], new])
    features.run(TASK, "logspec")
    assert encoded == [new]
    assert len(Frames.open(paths.features(TASK, "logspec"))[new])


def test_another_parameter_is_another_store(project: Path) -> None:
    features.run(TASK, "logspec")
    first, values = output(), (paths.features(TASK, "logspec") / "frames.npy").read_bytes()
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("high_hz: 800", "high_hz: 960"))
    features.run(TASK, "logspec")
    assert (paths.features(TASK, "logspec") / "frames.npy").read_bytes() != values
    (project / "params.yaml").write_text(text)
    features.run(TASK, "logspec")
    assert output() == first


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use([add_recording(i, 20.0) for i in range(80)])
    store = frame_cache.Store.of(encoders.spec("random_conv", config.load()), frame_cache.device())
    command = [sys.executable, "-m", "heartml", "features", "--task", TASK, "--encoder", "random_conv"]
    killed = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    while len(list(store.folder.rglob("*.npy"))) < 3 and killed.poll() is None:
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    done = len(list(store.folder.rglob("*.npy")))
    assert 3 <= done < 80
    assert not paths.features(TASK, "random_conv").exists()
    features.run(TASK, "random_conv")
    resumed = output("random_conv")
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(project / "elsewhere"))
    features.run(TASK, "random_conv")
    assert output("random_conv") == resumed


def test_a_batch_says_what_each_recording_says_alone(project: Path) -> None:
    """The way of the GPU, walked on the CPU: fixed shapes, zeros behind and beside."""
    declare_checkpoints(project)
    recording_ids = pd.read_parquet(paths.folds(TASK))["recording_id"].tolist()
    for name in config.load().encoder_parameters:
        spec = encoders.spec(name, config.load())
        encoder = encoders.load(spec)
        alone, together = frame_cache.Store(project / "a"), frame_cache.Store(project / "b")
        frame_cache.encode(recording_ids, spec, alone, "cpu")
        waveforms = [frame_cache._prepared(spec, i) for i in recording_ids]
        assert set(frame_cache._encode_in_batches(encoder, waveforms, together, "cpu")) == set(recording_ids)
        for recording_id in recording_ids:
            own, batched = (store.view(recording_ids)[recording_id].astype(float) for store in (alone, together))
            assert own.shape == batched.shape
            assert own == pytest.approx(batched, abs=0.02)
        shutil.rmtree(together.folder)
        list(frame_cache._encode_in_batches(encoder, waveforms[:1], frame_cache.Store(project / "c"), "cpu"))
        few = frame_cache.Store(project / "c").path(recording_ids[0]).read_bytes()
        list(frame_cache._encode_in_batches(encoder, waveforms, together, "cpu"))
        assert together.path(recording_ids[0]).read_bytes() == few
        shutil.rmtree(project / "a")
        shutil.rmtree(project / "b")
        shutil.rmtree(project / "c")


def test_samples_that_are_not_what_their_name_says_stop_the_stage(project: Path) -> None:
    victim, other = pd.read_parquet(paths.folds(TASK))["recording_id"].tolist()[:2]
    shutil.copy(paths.audio(other), paths.audio(victim))
    with pytest.raises(sound_files.OtherSamplesError, match=victim[:12]):
        features.run(TASK, "logspec")


def test_a_recording_without_frames_is_named(tmp_path: Path) -> None:
    frame_store.write(tmp_path, {"aa": np.ones((2, 3), np.float16)}, 50.0, {"name": "logspec"})
    packed = Frames.open(tmp_path)
    assert packed["aa"].tolist() == [[1, 1, 1], [1, 1, 1]]
    with pytest.raises(FramesError, match="bb"):
        packed["bb"]


def test_a_disk_that_fills_up_while_frames_are_packed_is_an_error_and_no_death(tmp_path: Path) -> None:
    """Where memory is mapped to a file that finds no room the kernel kills whoever writes."""
    (tmp_path / "project").mkdir()
    frames_of = {f"{n:064x}": np.ones((1000, 64), np.float16) for n in range(20)}
    with fault_injection.mounted_disk(tmp_path / "disk", 1) as disk:
        project = disk.hold(Workspace(tmp_path / "project"))
        packing = fault_injection.fork_command(
            project, act=lambda: frame_store.write(Path("frames"), frames_of, 100.0, {}))
        said = packing.wait()
    assert packing.status == 1, said
    assert "No space left on device" in said


def _put(folder: Path, values: int) -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
    try:
        frame_cache.Store(folder).put("ab", np.ones((values, 1), np.float16))
    except OSError:
        return "refused"
    return "kept"


@pytest.mark.parametrize(("values", "becomes"), [(100, "kept"), (300, "refused"), (30_000, "refused")])
def test_frames_are_kept_whole_or_not_at_all(tmp_path: Path, values: int, becomes: str) -> None:
    """Less than a page that finds no room is lost on numpy without a word."""
    with get_context("fork").Pool(1) as alone:
        assert alone.apply(_put, [tmp_path, values]) == becomes
    assert [len(np.load(file)) for file in tmp_path.rglob("*.*")] == [values] * (becomes == "kept")


def test_packing_keeps_every_recording_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = {f"{i:064x}": rng.normal(size=(rng.integers(1, 40), 5)).astype(np.float16) for i in range(50)}
    frame_store.write(tmp_path / "a", given, 12.5, {"name": "x"})
    frame_store.write(tmp_path / "b", dict(reversed(given.items())), 12.5, {"name": "x"})
    assert hashing.sha256_folder(tmp_path / "a") == hashing.sha256_folder(tmp_path / "b")
    packed = Frames.open(tmp_path / "a")
    assert all(np.array_equal(packed[i], array.astype(np.float32)) for i, array in given.items())
