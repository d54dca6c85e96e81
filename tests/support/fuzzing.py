"""Fuzzing: cases by number, each of which must end in a right answer or in an error that a person can read.

    PYTHONPATH=.:tests HEARTML_FUZZ_MODEL=MODEL python tests/support/fuzzing.py FOLDER CASES FIRST [TARGET...]

divides CASES among the targets by their weights, counts from FIRST, and prints a JSON line for each finding and a last
one with the counts. A case is reproduced by its number: `python tests/support/fuzzing.py FOLDER 1 NUMBER TARGET`. MODEL
is the folder of a fitted model that answers requests.
"""

import faulthandler
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import hostile_files, publisher_layouts

from heartml.audio import entry_checks, sound_files
from heartml.audio.entry_checks import FileFacts
from heartml.core import config
from heartml.core.schema import QUARANTINE
from heartml.core.system.errors import HeartMLError
from heartml.data import datasets
from heartml.data.datasets import Layout, leaves_folder
from heartml.data.ingest import tables as ingest_tables
from heartml.data.ingest import version

CASE_S = 10              # a case that takes longer hangs
MEMORY_BYTES = 700 << 20  # more than this process had before the first case of its kind
MOST_BYTES = 24 << 30     # of addresses; torch alone takes several
ROOT = Path(__file__).parents[2]
PARAMS = config.load(ROOT / "params.yaml")


class WrongAnswerError(AssertionError):
    """An answer that is not right."""


def check(holds: bool, words: str) -> None:
    """Say that the answer is wrong."""
    if not holds:
        raise WrongAnswerError(words)


# What is attacked: (rng, folder of this case's own) -> a word about the outcome

def fuzz_sound(rng: random.Random, folder: Path) -> str:
    """A sound file, read."""
    path = folder / rng.choice(("a.wav", "a.flac", "a.raw", "a", "a.txt", "é.mp3"))
    path.write_bytes(hostile_files.damaged_sound_file(rng))
    samples = sound_files.read(path)
    check(0 < len(samples.pcm) <= sound_files.MAX_SAMPLES, f"{len(samples.pcm)} samples")
    check(samples.pcm.dtype in (np.int16, np.int32) and samples.pcm.ndim == 1, str(samples.pcm.dtype))
    check(sound_files.RATES_HZ[0] <= samples.sample_rate_hz <= sound_files.RATES_HZ[1], f"{samples.sample_rate_hz} Hz")
    check(bool(np.abs(samples.floats).max() <= 1), "beyond full scale")
    return "read"


_TABLES = (".csv", ".txt", ".hea", ".tsv", ".yaml", "RECORDS", "SUMS", "-normal", "-abnormal")


@cache
def valid_layout(name: str) -> Mapping[str, bytes]:
    """A publisher's folder, relative name -> bytes; the sounds are left out, since no adapter opens them."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(publisher_layouts, "draw_heart_sound", lambda *_args, **_more: np.arange(400, dtype=np.int16))
        root = publisher_layouts.BUILDERS[name](Path(folder) / "made")
        return {path.relative_to(root).as_posix(): path.read_bytes() if path.name.endswith(_TABLES) else b"sound"
                for path in sorted(root.rglob("*")) if path.is_file()}


def write_damaged_layout(rng: random.Random, name: str, folder: Path) -> None:
    """A publisher's folder in which one to three side files, or names, are not what they should be."""
    files = dict(valid_layout(name))
    texts = [file for file in files if file.endswith(_TABLES)]
    tables = [file for file in texts if file.endswith((".csv", ".yaml"))] or texts
    for file in rng.sample(sorted(files), rng.choice((0, 0, 1))):
        files[file + rng.choice((".bak", " ", "\u0301", "\ufffe"))] = files.pop(file)
    for _ in range(rng.choice((1, 1, 2, 3))):
        file = rng.choice(tables if rng.random() < 0.6 and tables else texts or sorted(files))
        if file in files:
            extra = (hostile_files.insert_yaml,) if file.endswith(".yaml") else ()
            files[file] = hostile_files.damaged_table(rng, files[file], *extra)
    for file, data in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
    if rng.random() < 0.1:
        raw = os.fsencode(folder / rng.choice(sorted(files))) + rng.choice((b"\xff.wav", b"\x1b[2J.wav", b"\n.wav"))
        Path(os.fsdecode(raw)).write_bytes(b"sound")


def fuzz_adapter(name: str) -> Callable[[random.Random, Path], str]:
    """A publisher's folder, read and admitted as `heartml ingest` does before and after it decodes."""
    def attack(rng: random.Random, folder: Path) -> str:
        write_damaged_layout(rng, name, folder)
        source, root = datasets.open_dataset(name, folder)
        layout = source.read(root)
        check_layout(layout, root)
        facts = {file: _facts(root, file) for file in ingest_tables.published_facts(layout)}
        admitted = ingest_tables.admit(source, layout, facts, version.read(), PARAMS.ingest)
        named = len(admitted.candidates) + len(admitted.refused)
        check(named == len(layout.recordings), f"{named} of {len(layout.recordings)} files came out")
        for table in (admitted.candidates, admitted.refused, layout.refused, layout.annotations):
            table.astype(dict.fromkeys(table.select_dtypes(include=["object", "string"]), "string")).to_parquet(
                folder / "kept.parquet")
        return "admitted"

    return attack


def check_layout(layout: Layout, root: Path) -> None:
    """Every row is a file inside the folder, once; every refusal says why; every sound on disk is one or the other."""
    files = layout.recordings["source_file"]
    check(bool(files.is_unique), "a file stands there twice")
    check(not any(leaves_folder(file) for file in files), "a recording leads out of the folder")
    check(bool(layout.recordings["group"].notna().all()), "a recording without a group")
    check(set(layout.refused) == set(QUARANTINE), "quarantine has other columns")
    check(bool(layout.refused[["source_file", "reason", "detail"]].notna().all().all()), "a refusal without a reason")
    check(all(layout.refused["source_file"].str.len() > 0), "a refusal of nothing")
    states = layout.annotations[["start_s", "end_s"]].to_numpy(float)
    check(bool(np.isfinite(states).all() and (states >= 0).all() and (states[:, 0] <= states[:, 1]).all()),
          "a heart state that is no interval")


def _facts(root: Path, file: str) -> FileFacts:
    fault = entry_checks.path_fault(root, root / file)
    return FileFacts.refused(fault) if fault else FileFacts(f"{hash(file):064x}"[-64:], 4000, 40_000, 0.5, "0" * 64)


def fuzz_mapping(rng: random.Random, folder: Path) -> str:
    """A mapping file."""
    data = valid_layout("generic")["generic.yaml"]
    (folder / "generic.yaml").write_bytes(hostile_files.damaged_table(rng, data, hostile_files.insert_yaml))
    datasets.open_dataset("generic", folder)
    return "understood"


def fuzz_parameters(rng: random.Random, folder: Path) -> str:
    """params.yaml."""
    path = folder / "params.yaml"
    valid = (ROOT / "params.yaml").read_bytes()
    path.write_bytes(hostile_files.damaged_table(rng, valid, hostile_files.insert_yaml))
    config.load(path)
    return "understood"


PREDICT_TABLE = b"path,patient_id,location\na.wav,2530,AV\nsub/b.flac,2530,MV\n2530_TV.wav,,\nc.wav,9979,\n"


def fuzz_inputs(rng: random.Random, folder: Path) -> str:
    """A table for `heartml predict`, and what it names."""
    from heartml.inference import inputs as reader
    from heartml.inference import predict

    (folder / "visits.csv").write_bytes(hostile_files.damaged_table(rng, PREDICT_TABLE))
    (folder / "a.wav").write_bytes(hostile_files.damaged_sound_file(rng))
    items = reader.gather([folder / "visits.csv"])
    check(len(reader.units(items, "patient")) == len(items), "a unit is missing")
    for item in items[:50]:
        recording, waveform = predict.read_recording(item, PARAMS)
        check((recording.fault is None) == (waveform is not None), "neither answer nor fault")
    return "listened"


def _valid_input(rng: random.Random) -> list[float]:
    return np.round(np.random.default_rng(rng.randrange(20)).normal(0, 0.1, 4000), 4).tolist()


def _random_json(rng: random.Random) -> Any:
    """A cell of a request."""
    good = _valid_input(rng)
    return rng.choice((
        good, good, good, np.asarray(good), tuple(good), [x * 10.0 ** rng.randint(-45, 38) for x in good], [], None,
        "/etc/passwd", "http://localhost/a.wav", b"RIFF", {"path": "/etc/passwd"}, {}, [good], [[0.1]] * 4000, 0, 1.5,
        True, float("nan"), [float("nan")] * 4000, [None] * 4000, ["0.1"] * 4000, ["x"] * 4000, [10**400] * 4000,
        [1e308] * 4000, [True] * 4000, [{}] * 4000, [0.5] * 4000, [1j] * 4000, np.zeros((2, 4000)), np.array("x"),
        np.array(1.0), [good, 1], list(range(4000)), np.array(["x"] * 4000), np.array([None] * 4000), pd.NA, pd.NaT))


def fuzz_request(rng: random.Random, folder: Path) -> str:
    """What a caller sends to the scoring server."""
    from mlflow.exceptions import MlflowException

    from heartml.inference import serving

    rows, sane = rng.choice((0, 1, 1, 2, 3)), rng.random() < 0.4
    odd = (4000, 4000, 4000, 4000.0, np.int64(2000), 0, -1, "4000", None, True, 10**400, 10**9000, float("inf"), [4000],
           {}, "/etc")
    columns: dict[str, Any] = {
        "samples": [_random_json(rng) for _ in range(rows)],
        "sample_rate_hz": [rng.choice(odd) for _ in range(rows)],
        "unit_id": [rng.choice(("a", "a", "b", None, 1, float("nan"), [1], {}, "=1+1", "/etc/passwd", "x" * 9999, b"x"))
                    for _ in range(rows)],
        "path": ["/etc/passwd"] * rows}
    if sane:      # one cell alone is odd
        columns |= {"samples": [_valid_input(rng) for _ in range(rows)], "sample_rate_hz": [4000] * rows}
        odd_one = rng.choice(("samples", "sample_rate_hz", "unit_id"))
        if rows and odd_one != "unit_id":
            columns[odd_one][0] = _random_json(rng) if odd_one == "samples" else rng.choice(odd)
    for name in rng.sample(sorted(columns), rng.choice((0, 0, 0, 1, 2))):
        del columns[name]
    sent = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    try:
        predicted = serving.predict_table(_model(), PARAMS, sent)
    except MlflowException as error:
        check(error.get_http_status_code() == 400, f"HTTP {error.get_http_status_code()}")
        check(len(error.message) < 1000, f"{len(error.message)} characters of complaint")
        return "refused"
    numbers = predicted.select_dtypes("number").to_numpy(float)
    check(bool(np.isfinite(numbers).all()), "an answer that is no number")
    check(bool(np.allclose(predicted.filter(like="c_").sum(axis=1), 1)), "probabilities that do not sum to one")
    return "answered"


@cache
def _model() -> Any:
    from heartml.models.fitted_model import Model

    return Model.load(Path(os.environ["HEARTML_FUZZ_MODEL"]))


TARGETS: dict[str, Callable[[random.Random, Path], str]] = {
    "sound": fuzz_sound, "mapping": fuzz_mapping, "parameters": fuzz_parameters, "inputs": fuzz_inputs,
    "request": fuzz_request,
    **{name: fuzz_adapter(name) for name in ("circor", "pascal", "bmdhs", "physionet2016", "yaseen", "icbhi",
                                             "sprsound", "kauh", "coswara", "coughvid", "hls-cmds",
                                             "simulated-lungs", "generic")},
}


WEIGHTS = {"sound": 120, "mapping": 20, "inputs": 20, "request": 8, "parameters": 2}      # of the others: 3 each


def share_cases(cases: int, targets: Sequence[str]) -> dict[str, int]:
    """How many cases each target gets, one at least."""
    whole = sum(WEIGHTS.get(target, 3) for target in targets)
    return {target: max(1, cases * WEIGHTS.get(target, 3) // whole) for target in targets}


def run_case(target: str, number: int, folder: Path) -> tuple[str, str]:
    """Outcome of one case, and what is wrong with it."""
    own = folder / f"{target}-{number}"
    own.mkdir(parents=True)
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, CASE_S)
    try:
        outcome, fault = TARGETS[target](random.Random(f"{target}-{number}"), own), ""
    except HeartMLError as error:
        length = len(str(error))
        outcome, fault = "error", "" if 0 < length < 4000 else f"{length} characters of error"
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        outcome, fault = "finding", f"{type(error).__name__}: {str(error)[:300]} ({place})"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    shutil.rmtree(own)
    seconds = time.monotonic() - started
    return outcome, fault or (f"{seconds:.1f} s" if seconds > CASE_S else "")


def raise_timeout(*_: object) -> None:
    """What the alarm does."""
    raise TimeoutError(f"more than {CASE_S} s")


def main(folder: Path, cases: int, first: int, targets: Sequence[str]) -> None:
    """Run the cases; memory is limited, and a case that hangs in foreign code ends the process with its number told."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, raise_timeout)
    os.chdir(folder)      # where no version of any data lies
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    counts: Counter[str] = Counter()
    for target, own in share_cases(cases, targets).items():
        run_case(target, -1, folder)      # what is built once is no case's memory
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(first, first + own):
            faulthandler.dump_traceback_later(3 * CASE_S, exit=True)
            (folder / "now").write_text(f"{number} {target}")
            outcome, fault = run_case(target, number, folder)
            counts[f"{target} {outcome}"] += 1
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            if (after - before) * 1024 > MEMORY_BYTES:
                fault, before = fault or f"{(after - before) >> 10} MiB", after
            if fault:
                print(json.dumps({"target": target, "number": number, "fault": fault}), flush=True)
        faulthandler.cancel_dump_traceback_later()
    print(json.dumps({"counts": counts}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] or list(TARGETS))
