"""Simulated children: reproducible from a seed, true to the words of their labels, like real ones where measured."""

import io
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner

from heartml.cli import cli
from heartml.core import config
from heartml.core.system import hashing
from heartml.data.datasets import simulated
from heartml.data.simulation import corpus as simulate
from heartml.data.simulation import physiology, visits
from heartml.data.simulation.children import Child, draw_child
from heartml.data.simulation.physiology import DIASTOLE, S1, S2, SAMPLE_RATE_HZ, SYSTOLE, UNANNOTATED, Murmur

ROOT = Path(__file__).parents[2]
PUBLISHERS_COLUMNS = (   # head of CirCor 1.0.3's training_data.csv, copied from the publisher's file
    "Patient ID,Recording locations:,Age,Sex,Height,Weight,Pregnancy status,Murmur,Murmur locations,"
    "Most audible location,Systolic murmur timing,Systolic murmur shape,Systolic murmur grading,"
    "Systolic murmur pitch,Systolic murmur quality,"
    "Diastolic murmur timing,Diastolic murmur shape,Diastolic murmur grading,Diastolic murmur pitch,"
    "Diastolic murmur quality,Outcome,Campaign,Additional ID"
)


def folder_of(path: Path, count: int, *, seed: int = 3, seconds: float = 3.0, faults: bool = False) -> Path:
    simulate.run(path, count=count, seed=seed, seconds=seconds, faults=faults)
    return path


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A small corpus with every fault, and where each was planted."""
    path = tmp_path_factory.mktemp("simulated") / "corpus"
    corpus = simulate.run(path, count=40, seed=5, seconds=2.0, faults=True)
    return path, {fault.kind: fault.where for fault in corpus.faults}


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "training_data.csv", dtype=str, keep_default_na=False).set_index("Patient ID")


def pcm(folder: Path, name: str) -> np.ndarray:
    return soundfile.read(folder / "training_data" / f"{name}.wav", dtype="int16")[0]


@cache
def first_visit(label: str) -> visits.Visit:
    """A visit of the first child with a label, in quiet scenes."""
    children = (draw_child(1, k) for k in range(60))
    child = next(c for c in children if c.label == label and (c.lesion or label != "Present"))
    visit = visits.draw_visits(1, child)[0]
    quiet = {place: replace(scene, noise_db=-40.0, voice_db=-np.inf, rubs_per_s=0.0, hum_db=-np.inf)
             for place, scene in visit.scenes.items()}
    return replace(visit, scenes=quiet, poor=False)


def sounding(**words: str) -> visits.Recording:
    """One quiet recording, at its loudest location, of one child with a murmur described in other words."""
    visit = first_visit("Present")
    plain = Murmur("Holosystolic", "Plateau", "III/VI", "Medium", "Blowing")
    child = replace(visit.child, murmur=replace(plain, **words), murmur_db=0.0, diastolic=None,
                    heart=replace(visit.child.heart, extrasystole_share=0.0))
    visit = replace(visit, child=child)
    return next(r for r in visits.record(visit, 10.0) if r.location == visits.most_audible(visit))


def pieces(recording: visits.Recording, state: int, low: float = 0.15, high: float = 0.85) -> list[np.ndarray]:
    """Samples of every span of one heart state, from share `low` to share `high` of it."""
    spans = [(a + low * (b - a), a + high * (b - a)) for a, b, code in recording.states if code == state]
    return [recording.pcm[round(a * SAMPLE_RATE_HZ):round(b * SAMPLE_RATE_HZ)].astype(float) for a, b in spans]


def power(parts: list[np.ndarray]) -> float:
    return float(np.mean(np.concatenate(parts) ** 2))


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    first, second, other = (folder_of(tmp_path / name, 3, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert hashing.sha256_folder(first) == hashing.sha256_folder(second) != hashing.sha256_folder(other)


def test_a_child_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few, many = folder_of(tmp_path / "few", 2), folder_of(tmp_path / "many", 5)
    rows = table(few)
    assert rows.equals(table(many).loc[rows.index])
    names = sorted(path.name for path in (few / "training_data").iterdir())
    assert len(names) > 20
    for name in names:
        assert (few / "training_data" / name).read_bytes() == (many / "training_data" / name).read_bytes()


def test_every_id_is_somebody_else() -> None:
    ids = [visit.patient_id for k in range(300) for visit in visits.draw_visits(9, draw_child(9, k))]
    assert len(set(ids)) == len(ids) > 300


@pytest.mark.parametrize("label", ["Present", "Absent", "Unknown"])
def test_heart_states_tile_the_recording_and_s1_precedes_s2(label: str) -> None:
    for recording in visits.record(first_visit(label), 8.0):
        starts, ends, codes = zip(*recording.states, strict=True)
        assert starts[0] == 0 and ends[-1] == pytest.approx(len(recording.pcm) / SAMPLE_RATE_HZ)
        assert starts[1:] == ends[:-1] and all(a < b for a, b in zip(starts, ends, strict=True))
        marked = [code for code in codes if code != UNANNOTATED]
        assert marked == [S1, SYSTOLE, S2, DIASTOLE] * (len(marked) // 4) != []


def test_sounds_are_where_the_states_say() -> None:
    recording = sounding(grade="I/VI")
    assert min(power(pieces(recording, S1)), power(pieces(recording, S2))) > 4 * power(pieces(recording, DIASTOLE))


def test_a_higher_grade_has_more_systolic_energy() -> None:
    faint, soft, loud = (power(pieces(sounding(grade=grade), SYSTOLE)) for grade in ("I/VI", "II/VI", "III/VI"))
    assert faint * 2 < soft and soft * 2 < loud


@pytest.mark.parametrize("quality", ["Harsh", "Blowing", "Musical"])
def test_pitch_moves_the_spectral_centroid(quality: str) -> None:
    centroids = []
    for pitch in ("Low", "Medium", "High"):
        parts = pieces(sounding(pitch=pitch, quality=quality), SYSTOLE)
        spectra = [np.abs(np.fft.rfft(part * np.hanning(len(part)), 2048)) ** 2 for part in parts]
        hz = np.fft.rfftfreq(2048, 1 / SAMPLE_RATE_HZ)
        band = (hz > 60) & (hz < 800)
        mean = np.mean(spectra, axis=0)[band]
        centroids.append(float((hz[band] * mean).sum() / mean.sum()))
    assert centroids[0] * 1.15 < centroids[1] and centroids[1] * 1.15 < centroids[2]


def test_timing_and_shape_are_heard() -> None:
    def halves(**words: str) -> float:
        recording = sounding(**words)
        return power(pieces(recording, SYSTOLE, 0.05, 0.45)) / power(pieces(recording, SYSTOLE, 0.55, 0.95))

    assert halves(timing="Early-systolic") > 4
    assert halves(timing="Late-systolic") < 1 / 4
    assert halves(shape="Decrescendo") > 1.5 * halves(shape="Plateau") > 2 * halves(shape="Crescendo")
    diastolic = sounding(timing="Early-diastolic")
    assert power(pieces(diastolic, DIASTOLE, 0.1, 0.4)) > 4 * power(pieces(sounding(), DIASTOLE, 0.1, 0.4))


def test_a_musical_murmur_is_narrower_than_a_blowing_and_that_than_a_harsh_one() -> None:
    def width(quality: str) -> float:
        murmur = Murmur("Holosystolic", "Plateau", "II/VI", "Medium", quality)
        carrier = physiology.murmur_carrier(murmur, np.ones(8001), 16000, np.random.default_rng(0))
        spectrum, hz = np.abs(np.fft.rfft(carrier)) ** 2, physiology.spectrum_hz(16000)
        share = np.cumsum(spectrum) / spectrum.sum()
        return float(hz[np.searchsorted(share, 0.75)] - hz[np.searchsorted(share, 0.25)])

    assert width("Musical") < width("Blowing") < width("Harsh")


def test_hearts_beat_faster_in_small_children_and_breathing_moves_them() -> None:
    children = [draw_child(2, k) for k in range(400)]
    infants, older = ([c.heart.rate_bpm for c in children if c.age_group == group] for group in ("Infant", "Child"))
    assert np.mean(infants) > np.mean(older) + 15
    heart = replace(children[0].heart, variation=0.06, extrasystole_share=0.0)
    beats = physiology.draw_beats(heart, 120.0, 0.0, np.random.default_rng(0))
    intervals = beats.end_s - beats.s1_s
    assert np.std(intervals) / np.mean(intervals) == pytest.approx(0.06, rel=0.3)
    spectrum = np.abs(np.fft.rfft(intervals - intervals.mean()))
    hz = np.fft.rfftfreq(len(intervals), np.mean(intervals))
    breath = np.abs(hz - heart.breath_hz) < 0.06
    assert spectrum[breath].max() > 3 * np.median(spectrum)


def test_every_class_has_ten_children_among_a_hundred() -> None:
    labels = pd.Series([draw_child(11, k).label for k in range(100)]).value_counts()
    assert labels["Unknown"] >= 10 and 25 <= labels["Present"] <= 30 and 60 <= labels["Absent"] <= 65


def test_truth_and_label_differ_now_and_then() -> None:
    children = [draw_child(4, k) for k in range(1000)]

    def ill(label: str) -> float:
        return float(np.mean([child.lesion is not None for child in children if child.label == label]))

    assert 0.9 < ill("Present") < 1 and 0 < ill("Absent") < 0.1 and 0.25 < ill("Unknown") < 0.55
    present, absent = ([c.abnormal for c in children if c.label == label] for label in ("Present", "Absent"))
    assert 0.7 < np.mean(present) < 1 and 0.2 < np.mean(absent) < 0.5


def test_a_returning_child_has_two_ids_that_name_each_other(tmp_path: Path) -> None:
    rows = table(folder_of(tmp_path / "c", 20, seconds=1.0))
    twins = rows[rows["Additional ID"] != "nan"]
    assert len(twins) == 2 and len(rows) == 21
    assert list(twins.loc[twins["Additional ID"], "Additional ID"]) == list(twins.index)
    assert set(twins["Campaign"]) == {"CC2014", "CC2015"} and twins["Sex"].nunique() == 1


def test_a_murmur_is_heard_only_where_there_is_a_recording() -> None:
    for number in range(200):
        for visit in visits.draw_visits(6, draw_child(6, number)):
            row = visits.table_row(visit)
            places = row["Murmur locations"].split("+")
            assert (row["Murmur"] == "Present") == (places != ["nan"]) == (row["Systolic murmur grading"] != "nan")
            if row["Murmur"] == "Present":
                assert set(places) <= set(row["Recording locations:"].split("+"))
                assert row["Most audible location"] in places


def test_files_are_written_as_circors_are(faulty: tuple[Path, dict[str, str]]) -> None:
    folder, _ = faulty
    assert (folder / "training_data.csv").read_bytes().startswith(PUBLISHERS_COLUMNS.encode() + b"\n")
    name = (folder / "RECORDS").read_text().splitlines()[0].removeprefix("training_data/")
    samples, location = len(pcm(folder, name)), name.split("_")[1]
    header = f"{name} 1 4000 {samples}\r\n{name}.wav 16+44 1 16 0 0 0 0 {location}\r\n"
    assert (folder / "training_data" / f"{name}.hea").read_bytes() == header.encode()
    assert (folder / "training_data" / f"{name}.wav").stat().st_size == 44 + 2 * samples


@pytest.mark.real
def test_the_layout_is_circors(real_circor: Path, tmp_path: Path) -> None:
    own = folder_of(tmp_path / "own", 20, seconds=1.0)
    ours, theirs = table(own), table(real_circor)
    assert list(ours.columns) == list(theirs.columns)
    for column in set(ours.columns) - {"Recording locations:", "Murmur locations", "Height", "Weight", "Additional ID"}:
        words = set(theirs[column]) | set(simulated.LABELS.get(column.lower().replace(" ", "_"), ()))
        assert set(ours[column]) <= words, column
    for suffix in (".txt", ".hea", ".tsv"):
        our, their = (min((folder / "training_data").glob(f"*{suffix}")) for folder in (own, real_circor))
        assert _form(our.read_bytes()) == _form(their.read_bytes())
    assert {p.name for p in own.iterdir()} == {p.name for p in real_circor.iterdir()}


def _form(text: bytes) -> tuple[bytes, list[bytes], int]:
    """Line end, the keys of the patient's rows, number of words in the last line."""
    lines = text.split(b"\n")
    return lines[0][-1:] if lines[0].endswith(b"\r") else b"", [w.split(b":")[0] for w in lines if w[:1] == b"#"], \
        len(lines[-2].split())


def test_checksums_hold_but_for_what_was_broken_on_the_way(faulty: tuple[Path, dict[str, str]]) -> None:
    folder, faults = faulty
    lines = [line.split(maxsplit=1) for line in (folder / "SHA256SUMS.txt").read_text().splitlines()]
    wrong = {Path(name).stem for digest, name in lines
             if not (folder / name).is_file() or hashing.sha256_file(folder / name) != digest}
    assert wrong == {faults["truncated"], faults["missing_file"]}
    on_disk = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {"SHA256SUMS.txt"}
    missing = {f"training_data/{faults['missing_file']}.wav"}
    assert on_disk == {name for _, name in lines} - missing


def test_faults_of_files_are_there(faulty: tuple[Path, dict[str, str]]) -> None:
    folder, faults = faulty
    audio = folder / "training_data"
    assert not pcm(folder, faults["silent"]).any()
    assert not (audio / f"{faults['missing_file']}.wav").exists()
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(audio / f"{faults['not_audio']}.wav")
    header = (audio / f"{faults['truncated']}.hea").read_text().split()
    assert len(pcm(folder, faults["truncated"])) < int(header[3]) * 0.7
    assert len(pcm(folder, faults["short"])) / SAMPLE_RATE_HZ == pytest.approx(0.3)
    assert np.mean(np.abs(pcm(folder, faults["clipped"]).astype(int)) > 32700) > 0.01
    patient, _, location = faults["duplicate"].partition("_")
    assert location == "TV" and np.array_equal(pcm(folder, f"{patient}_TV"), pcm(folder, f"{patient}_PV"))


def test_faults_of_rows_are_there(faulty: tuple[Path, dict[str, str]]) -> None:
    folder, faults = faulty
    rows = table(folder)
    assert rows.loc[faults["unknown_label"], "Murmur"] not in simulated.LABELS["murmur"]
    row = rows.loc[faults["unrecorded_location"]]
    assert set(row["Murmur locations"].split("+")) - set(row["Recording locations:"].split("+"))
    text = (folder / "training_data" / f"{faults['contradictory_row']}.txt").read_text()
    assert f"#Murmur: {rows.loc[faults['contradictory_row'], 'Murmur']}\n" not in text
    first, second = faults["contradiction"].split(" = ")
    labels = [rows.loc[name.split("_")[0], "Murmur"] for name in (first, second)]
    assert labels == ["Absent", "Present"] and np.array_equal(pcm(folder, first), pcm(folder, second))


def test_the_copied_child_is_a_near_copy_under_an_id_that_nobody_names(faulty: tuple[Path, dict[str, str]]) -> None:
    folder, faults = faulty
    rows = table(folder)
    assert rows.loc[faults["near_copy"], "Additional ID"] == "nan"
    assert faults["near_copy"] not in set(rows["Additional ID"])
    copy = pcm(folder, f"{faults['near_copy']}_MV").astype(float)

    def likeness(name: str) -> float:
        original = pcm(folder, name).astype(float)[1000:]
        return float(np.corrcoef(original, copy)[0, 1]) if len(original) == len(copy) and original.any() else 0.0

    names = [path.stem for path in (folder / "training_data").glob("*_MV.wav") if faults["near_copy"] not in path.stem]
    assert 0.95 < max(map(likeness, names)) < 1


def test_the_adapter_reads_it_with_circors_reader(faulty: tuple[Path, dict[str, str]]) -> None:
    folder, faults = faulty
    layout = simulated.read(folder)
    assert layout.recordings["patient_id"].str.startswith("simulated-").all()
    assert len(layout.same_person) == 2
    refused = set(layout.refused["source_file"])
    assert f"training_data/{faults['missing_file']}.wav" in refused
    assert {name for name in refused if faults["contradictory_row"] in name}
    states = layout.annotations.groupby("source_file")
    assert states["end_s"].max().gt(0).all() and set(layout.annotations["state"]) >= {"S1", "systole", "S2", "diastole"}


def test_nothing_is_overwritten_and_impossible_numbers_say_what_is_possible(tmp_path: Path) -> None:
    kept = tmp_path / "mine"
    kept.mkdir()
    (kept / "thesis.txt").write_text("years")
    with pytest.raises(simulate.SimulateError, match="new or empty"):
        folder_of(kept, 1)
    assert (kept / "thesis.txt").read_text() == "years"
    with pytest.raises(simulate.SimulateError, match="--no-faults"):
        folder_of(tmp_path / "few", 5, faults=True)
    with pytest.raises(simulate.SimulateError, match="--children 0"):
        folder_of(tmp_path / "none", 0)
    with pytest.raises(simulate.SimulateError, match="--seconds"):
        folder_of(tmp_path / "short", 1, seconds=0.1)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_numbers_come_from_params_or_from_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = ["simulate", str(tmp_path / "c"), "--children", "2", "--seconds", "1", "--no-faults"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and result.output.startswith("2 ids, 8 recordings")
    by_hand = folder_of(tmp_path / "d", 2, seed=config.load().simulate.seed, seconds=1.0)
    assert hashing.sha256_folder(tmp_path / "c") == hashing.sha256_folder(by_hand)


def drawn_recordings(count: int) -> list[visits.Recording]:
    """One recording of each of `count` children, in the scenes that were drawn."""
    children = [draw_child(21, k) for k in range(count)]
    return [visits.record(one_location(child), 8.0)[0] for child in children]


def one_location(child: Child) -> visits.Visit:
    visit = visits.draw_visits(21, child)[0]
    place = list(visit.scenes)[child.number % len(visit.scenes)]
    return replace(visit, scenes={place: visit.scenes[place]})


def test_a_recording_costs_little_as_flac() -> None:
    size, samples = 0, 0
    for recording in drawn_recordings(40):
        buffer = io.BytesIO()
        soundfile.write(buffer, recording.pcm, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
        size, samples = size + len(buffer.getvalue()), samples + len(recording.pcm)
    assert 8 * size / samples < 6      # bits a sample; 400 recordings of 10 s stay under 12 MB


def facts(samples: np.ndarray, states: list[tuple[float, float, int]]) -> dict[str, float]:
    """Heart rate, S1-S2 interval, S1 against diastole, and the tilt of the diastole's spectrum, of one recording."""
    recording = visits.Recording("", "", samples, states)
    first = np.array([a for a, _, code in states if code == S1])
    to_second = [b - a for (a, _, one), (b, _, two) in zip(states, states[2:], strict=False) if (one, two) == (S1, S2)]
    quiet = [part for part in pieces(recording, DIASTOLE) if len(part) > 200]
    spectrum = np.median([np.abs(np.fft.rfft(part[:200] * np.hanning(200))) ** 2 for part in quiet], axis=0)
    hz = np.fft.rfftfreq(200, 1 / SAMPLE_RATE_HZ)

    def band(low: float, high: float) -> float:
        return 10 * np.log10(spectrum[(hz >= low) & (hz < high)].mean() + 1e-3)

    s1 = np.median([np.mean(part**2) for part in pieces(recording, S1)])
    return {
        "rate_bpm": 60 / np.median(np.diff(first)), "systole_s": float(np.median(to_second)),
        "s1_over_diastole_db": 10 * np.log10(s1 / np.median([np.mean(part**2) for part in quiet])),
        "tilt_100_db": band(40, 100) - band(100, 200), "tilt_200_db": band(100, 200) - band(200, 400),
        "tilt_400_db": band(200, 400) - band(400, 800),
    }


@pytest.mark.real
def test_recordings_resemble_circors(real_circor: Path) -> None:
    real = []
    for path in sorted((real_circor / "training_data").glob("*.wav"))[::7]:
        states = pd.read_csv(path.with_suffix(".tsv"), sep="\t", header=None).itertuples(index=False, name=None)
        rows = [(float(a), float(b), int(code)) for a, b, code in states]
        if [code for *_, code in rows][1:9:4] == [S1, S1] and sum(b - a > 0.1 for a, b, c in rows if c == DIASTOLE) > 4:
            real.append(facts(soundfile.read(path, dtype="int16")[0], rows))
    ours = [facts(r.pcm, r.states) for r in drawn_recordings(110) if sum(code == S1 for *_, code in r.states) > 5]
    assert len(real) > 60 < len(ours)
    theirs, own = pd.DataFrame(real), pd.DataFrame(ours).median()
    low, high = theirs.quantile(0.25), theirs.quantile(0.75)   # our median lies in their middle half
    assert not pd.concat([low, own, high], axis=1)[(own < low) | (own > high)].T.to_dict()
