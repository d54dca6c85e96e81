"""Thousands of broken, absurd and hostile inputs: a clear error or a right answer, no traceback, no hang, no memory.

HEARTML_FUZZ_CASES sets how many (a million for a night), HEARTML_FUZZ_FIRST the first one's number; a finding says
with which number it comes back. The cases themselves stand in tests/support/fuzzing.py and
tests/support/hostile_files.py.
"""

import csv
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import fuzzing, hostile_files
from support.publisher_files import beating_noise, wav_bytes
from support.workspaces import ROOT, Workspace

from heartml.audio import sound_files
from heartml.core import paths
from heartml.core.system import cells
from heartml.inference import inputs

CASES = int(os.environ.get("HEARTML_FUZZ_CASES", "1000"))
FIRST = int(os.environ.get("HEARTML_FUZZ_FIRST", "0"))
FILES = 300
EACH = settings(max_examples=100, deadline=None, derandomize=True,
                suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory, fitted: dict[str, Path]) -> list[dict[str, object]]:
    """What a process of its own, with a limit on its memory, found; the last entry counts the outcomes."""
    folder = tmp_path_factory.mktemp("fuzz")
    environment = {**os.environ, "HEARTML_FUZZ_MODEL": str(fitted["simulated-murmur"]), "OMP_NUM_THREADS": "1",
                   "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "tests/support/fuzzing.py", folder, str(CASES), str(FIRST)], cwd=ROOT,
                          text=True,
                          env=environment, capture_output=True, check=False)
    number_and_target = (folder / "now").read_text()
    assert done.returncode == 0, f"died in case {number_and_target}: {done.stderr[-2000:]}"
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("target", fuzzing.TARGETS)
@pytest.mark.timeout(7 * 24 * 3600 if CASES > 100_000 else 600)
def test_every_case_ends_in_a_clear_error_or_a_right_answer(campaign: list[dict[str, object]], target: str) -> None:
    found = [entry for entry in campaign[:-1] if entry["target"] == target]
    again = "PYTHONPATH=.:tests HEARTML_FUZZ_MODEL=... python tests/support/fuzzing.py FOLDER 1"
    assert not found, "\n".join(f"{again} {entry['number']} {target}: {entry['fault']}" for entry in found)


def test_cases_reach_behind_the_first_check_and_are_refused_before_it(campaign: list[dict[str, object]]) -> None:
    counts = campaign[-1]["counts"]
    assert sum(counts.values()) >= CASES * 0.95
    good = {"sound": "read", "mapping": "understood", "parameters": "understood", "inputs": "listened",
            "request": "answered"}
    for target in fuzzing.TARGETS:
        assert counts.get(f"{target} {good.get(target, 'admitted')}", 0) > 0, f"{target}: nothing passes"
    for target in ("sound", "mapping", "parameters", "inputs", "circor", "generic"):
        assert counts.get(f"{target} error", 0) > 0, f"{target}: nothing is refused"


def broken(_rng: random.Random, _folder: Path) -> str:
    raise KeyError("a fault of ours")


def slow(_rng: random.Random, _folder: Path) -> str:
    time.sleep(30)
    return "never"


def untrue(_rng: random.Random, _folder: Path) -> str:
    fuzzing.check(False, "two and two are five")
    return "never"


@pytest.mark.parametrize(("plant", "words"), [(broken, "KeyError"), (slow, "more than 0.2 s"), (untrue, "are five")])
def test_the_bench_sees_a_crash_a_hang_and_a_wrong_answer(
    plant: object, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    before = signal.signal(signal.SIGALRM, fuzzing.raise_timeout)
    try:
        monkeypatch.setitem(fuzzing.TARGETS, "sound", plant)
        monkeypatch.setattr(fuzzing, "CASE_S", 0.2)
        said, fault = fuzzing.run_case("sound", 0, tmp_path)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert said == "finding"
    assert words in fault


# Right answers: what a file says, computed without the library that reads it

@st.composite
def recordings(draw: st.DrawFn) -> tuple[bytes, np.ndarray, int]:
    """A well-formed WAV file of any depth, its samples as the file holds them, and its bits."""
    bits, channels = draw(st.sampled_from((8, 16, 24, 32))), draw(st.integers(1, 4))
    rate = draw(st.sampled_from((500, 2000, 4000, 44_100, 400_000)))
    low = -(2 ** (bits - 1))
    values = draw(st.lists(st.integers(low, -low - 1), min_size=1, max_size=40))
    width = bits // 8
    raw = b"".join((v - low if bits == 8 else v).to_bytes(width, "little", signed=bits > 8) * channels for v in values)
    head = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * width, channels * width, bits)
    if draw(st.booleans()):
        head = struct.pack("<H", 0xFFFE) + head[2:] + struct.pack("<HHI", 22, bits, 0)
        head += bytes.fromhex("0100000000001000800000aa00389b71")
    extra = draw(st.sampled_from((b"", b"LIST\x04\x00\x00\x00INFO", b"JUNK\x03\x00\x00\x00abc\x00")))
    data = b"data" + struct.pack("<I", len(raw)) + raw + b"\x00" * (len(raw) % 2)
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(head)) + head + extra + data
    return b"RIFF" + struct.pack("<I", len(body)) + body, np.array(values, np.int64), bits


@EACH
@given(recordings())
def test_a_wav_is_read_as_its_bytes_say(tmp_path: Path, made: tuple[bytes, np.ndarray, int]) -> None:
    data, values, bits = made
    (tmp_path / "a.wav").write_bytes(data)
    pcm = sound_files.read(tmp_path / "a.wav").pcm
    if bits <= 16:
        assert (pcm == values << (16 - bits)).all()
    else:
        assert (pcm == (np.clip(np.rint(values / 2 ** (bits - 24)), -(2**23), 2**23 - 1).astype(int) << 8)).all()


PATHS = st.text(st.characters(exclude_characters="\x00/\\", exclude_categories=("Cs",)), min_size=1, max_size=12)
NAMES = PATHS.filter(lambda name: name.strip() == name and name not in (".", "..", ""))


def is_an_id(name: str) -> bool:
    """Whether a cell is a patient's id, and not a word for nothing or for several people."""
    try:
        return cells.identifier(name) == name
    except cells.CellError:
        return False


ROWS = st.tuples(NAMES, NAMES.filter(is_an_id), st.sampled_from(("AV", "MV", "")))


@EACH
@given(st.lists(ROWS, min_size=1, max_size=5, unique_by=lambda row: row[:2]), st.booleans())
def test_what_a_spreadsheet_writes_is_what_predict_reads(
    tmp_path: Path, rows: list[tuple[str, str, str]], german: bool
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=";" if german else ",", lineterminator="\r\n")
    writer.writerows([("Path", " patient_id", "location"), *((f"{name}.wav", *rest) for name, *rest in rows)])
    (tmp_path / "visits.csv").write_text(text.getvalue(), encoding="utf-8-sig", newline="")
    items = inputs.gather([tmp_path / "visits.csv"])
    wanted = dict.fromkeys((tmp_path / f"{name}.wav", patient) for name, patient, _ in rows)
    assert [(item.path, item.patient_id) for item in items] == list(wanted)


@pytest.mark.parametrize("row", ['"a.wav,1', '"a.wav"b,1', "a.wav,1,AV,new"])
def test_a_quote_that_is_not_closed_and_a_cell_too_many_swallow_and_shift_no_row(row: str, tmp_path: Path) -> None:
    (tmp_path / "visits.csv").write_text(f"path,patient_id,location\nb.wav,2,MV\n{row}\nc.wav,3,AV\n")
    with pytest.raises(inputs.InputsError, match=r"line [34]"):
        inputs.gather([tmp_path / "visits.csv"])


# Memory

def lies() -> dict[str, bytes]:
    """Small files whose headers promise gigabytes."""
    pcm = beating_noise(1, 0.5)
    flac = bytearray(hostile_files.encode_sound(pcm, "FLAC", "PCM_16"))
    flac[21:26] = bytes([flac[21] | 0x0F]) + b"\xff" * 4                        # 2^36 - 1 samples
    fast = bytearray(flac)
    fast[18:21] = bytes([0x61, 0xA8, 0x00 | (fast[20] & 0x0F)])                  # at 400 kHz: within an hour
    fast[21:26] = bytes([fast[21] & 0xF0]) + (1_400_000_000).to_bytes(4, "big")
    long_wav = bytearray(wav_bytes(pcm))
    long_wav[40:44] = (0xFFFFFFFE).to_bytes(4, "little")
    wide = bytearray(wav_bytes(pcm))
    wide[22:24] = (0xFFFF).to_bytes(2, "little")
    w64 = bytearray(hostile_files.encode_sound(pcm, "W64", "PCM_16"))
    at = w64.index(b"data")
    w64[at + 16 : at + 24] = (2**62).to_bytes(8, "little")
    caf = bytearray(hostile_files.encode_sound(pcm, "CAF", "PCM_16"))
    at = caf.index(b"data")
    caf[at + 4 : at + 12] = (2**62).to_bytes(8, "big")
    au = bytearray(hostile_files.encode_sound(pcm, "AU", "PCM_16"))
    au[8:12] = (0xFFFFFFF0).to_bytes(4, "big")
    found = {"flac": flac, "fast": fast, "wav": long_wav, "wide": wide, "w64": w64, "caf": caf, "au": au}
    return {name: bytes(data) for name, data in found.items()}


@pytest.mark.parametrize("name", lies())
def test_a_header_that_promises_gigabytes_costs_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(lies()[name])
    tracemalloc.start()
    try:
        with pytest.raises(sound_files.AudioError):
            sound_files.read(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("form", "subtype"), [("FLAC", "PCM_16"), ("OGG", "VORBIS")])
def test_a_decompression_bomb_is_refused_by_its_length(
    form: str, subtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = hostile_files.encode_sound(np.zeros(2_000_000, np.int16), form, subtype, 48_000)
    assert len(data) < 40_000
    (tmp_path / "bomb").write_bytes(data)
    assert len(sound_files.read(tmp_path / "bomb").pcm) == 2_000_000
    monkeypatch.setattr(sound_files, "MAX_SAMPLES", 1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(sound_files.AudioError, match="more than 1000000") as refused:
            sound_files.read(tmp_path / "bomb")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert refused.value.reason == "too_long"


@pytest.mark.parametrize("pause", ["pipe", "device"])
def test_what_never_ends_is_not_waited_for(pause: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    if pause == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(sound_files.AudioError, match="device"):
        sound_files.read(path)


@pytest.mark.parametrize(("form", "subtype"),
                         [form for form in hostile_files.FORMS if form[0] not in ("NIST", "VOC", "SVX")])
@pytest.mark.parametrize("kept", [0.9, 0.5])
def test_no_form_hides_that_its_end_is_missing(form: str, subtype: str, kept: float, tmp_path: Path) -> None:
    data = hostile_files.valid_sound_files()[hostile_files.FORMS.index((form, subtype))]
    (tmp_path / "a").write_bytes(data)
    assert len(sound_files.read(tmp_path / "a").pcm) >= 2400
    (tmp_path / "a").write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(sound_files.AudioError):
        sound_files.read(tmp_path / "a")


# Whole commands

def pile(folder: Path, seed: int) -> None:
    """`FILES` sound files, a tenth of them whole."""
    folder.mkdir(parents=True)
    rng = random.Random(f"{FIRST}-{seed}")
    for number in range(FILES):
        data = wav_bytes(beating_noise(number)) if number % 10 == 0 else hostile_files.damaged_sound_file(rng)
        (folder / f"{number:03d}.wav").write_bytes(data)


def test_predict_over_a_pile_of_broken_files_says_one_line_for_each(tmp_path: Path, fitted: dict[str, Path]) -> None:
    pile(tmp_path / "pile", 1)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    command = [sys.executable, "-m", "heartml", "predict", "pile", "--model", fitted["simulated-murmur"], "--json"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
                          capture_output=True, check=False, timeout=300, errors="replace")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    complaints = [line for line in done.stderr.splitlines() if line.startswith("heartml: pile/")]
    told = json.loads(done.stdout)
    assert len(complaints) == len(told["not_scored"]) > FILES // 4
    assert all(line.endswith("]") for line in complaints)
    scored = {recording["path"] for answer in told["answers"] for recording in answer["recordings"]}
    refused = {entry["path"] for entry in told["not_scored"]}
    assert scored.isdisjoint(refused)
    assert len(scored) + len(refused) == FILES
    assert {f"pile/{number:03d}.wav" for number in range(0, FILES, 10)} <= scored
    for answer in told["answers"]:
        assert sum(answer["calibrated"].values()) == pytest.approx(1)


def test_ingest_of_a_pile_of_broken_files_keeps_or_quarantines_each(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pile(tmp_path / "clinic" / "sounds", 2)
    labels = ("Present", "Absent", "Unknown", "=1+1")
    rows = [f"sounds/{number:03d}.wav,{number},{labels[number % 4]}" for number in range(FILES)]
    rows += ["../../../etc/passwd,1,Absent", "/etc/passwd,2,Absent", "sounds/000.wav,3,Present,9", f"{'x/' * 3000}y,4,"]
    (tmp_path / "clinic" / "table.csv").write_text("\n".join(["file,who,murmur", *rows]) + "\n")
    (tmp_path / "clinic" / "pile.yaml").write_text(
        "{title: t, citation: c, licence: l, table: table.csv, columns: {path: file, patient: who},"
        " labels: {murmur: {column: murmur}}}")
    done = workspace.run("ingest", "generic", tmp_path / "clinic" / "pile.yaml", check=False, timeout_s=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    monkeypatch.chdir(workspace.root)
    kept, refused = pd.read_parquet(paths.RECORDINGS), pd.read_parquet(paths.QUARANTINE)
    named = [*kept["source_file"], *refused["source_file"]]
    assert sorted(name for name in named if name.startswith("sounds/")) == [f"sounds/{n:03d}.wav" for n in range(FILES)]
    assert len(named) == FILES + 4
    assert refused[["reason", "detail"]].notna().all().all()
    assert refused["reason"].value_counts()["outside"] == 2
    assert "malformed" in set(refused["reason"])
    good = [f"sounds/{n:03d}.wav" for n in range(0, FILES, 10) if n % 4 != 3]
    assert set(good) <= set(kept["source_file"])
