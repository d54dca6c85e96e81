"""The simulator's lesions are what their sources say, and each planted fault is in one patient, as its table says."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from heartml.data.simulation import lesions, physiology, planted_faults
from heartml.data.simulation.children import NONE
from heartml.data.simulation.planted_faults import Patient, PlantedFault
from heartml.data.simulation.stethoscope import LOCATIONS
from heartml.data.simulation.visits import Recording


def test_lesions_are_all_murmurs_and_each_is_loudest_somewhere() -> None:
    assert sum(lesion.share for lesion in lesions.LESIONS.values()) == pytest.approx(1)
    for name, lesion in lesions.LESIONS.items():
        assert set(lesion.level_db) == set(LOCATIONS) and max(lesion.level_db.values()) == 0, name
        assert sum(lesion.grade) == pytest.approx(1) and sum(lesion.pitch) == pytest.approx(1), name
        assert (lesion.abnormal < 0.5) == name.startswith("innocent"), name
        assert (lesion.diastolic is None) == (name not in ("aortic stenosis", "arterial duct")), name


def test_murmurs_are_drawn_as_often_as_their_lesion_says() -> None:
    lesion, rng = lesions.LESIONS["innocent vibratory"], np.random.default_rng(0)
    drawn = [lesions.draw_murmur(lesion, rng) for _ in range(2000)]
    early = np.mean([murmur.timing == "Early-systolic" for murmur in drawn])
    assert early == pytest.approx(lesion.timing["Early-systolic"], abs=0.04)
    assert {murmur.grade for murmur in drawn} == {"I/VI", "II/VI"}, "never loud"
    assert all(lesions.draw_diastolic(lesion, rng) is None for _ in range(20))
    duct = [lesions.draw_diastolic(lesions.LESIONS["arterial duct"], rng) for _ in range(400)]
    assert np.mean([murmur is None for murmur in duct]) == pytest.approx(0.5, abs=0.1)


@cache
def patients() -> tuple[Patient, ...]:
    """Forty patients with four recordings of noise; every third one has a murmur at two locations."""
    made = []
    for number in range(40):
        rng, ill = np.random.default_rng(number), number % 3 == 0
        recordings = tuple(
            Recording(f"{number}_{place}", place, rng.integers(-9000, 9000, 8000).astype(np.int16),
                      [(0.0, 2.0, physiology.UNANNOTATED)]) for place in LOCATIONS)
        row = {"Patient ID": str(number), "Murmur": "Present" if ill else "Absent", "Additional ID": NONE,
               "Murmur locations": "AV+MV" if ill else NONE, "Most audible location": "MV" if ill else NONE,
               "Recording locations:": "+".join(LOCATIONS), "Campaign": "CC2014"}
        made.append(Patient(row, recordings))
    return tuple(made)


def changed() -> tuple[dict[str, Patient], dict[str, Patient], dict[str, str]]:
    """Before and after by id, and kind of fault -> where it was planted."""
    after, faults = planted_faults.plant(list(patients()))
    return ({p.row["Patient ID"]: p for p in patients()}, {p.row["Patient ID"]: p for p in after},
            {fault.kind: fault.where for fault in faults})


def samples(patient: Patient, name: str) -> np.ndarray:
    return next(recording.pcm for recording in patient.recordings if recording.name == name)


def test_every_fault_is_planted_once_and_in_a_patient_of_its_own() -> None:
    _, faults = planted_faults.plant(list(patients()))
    kinds = [line.split("|")[1].strip() for line in (planted_faults.__doc__ or "").splitlines() if "|" in line][2:]
    assert sorted(fault.kind for fault in faults) == sorted(kinds)
    of_patients = [fault.where.split(" = ")[0].split("_")[0] for fault in faults]
    assert len(set(of_patients)) == len(of_patients)
    assert PlantedFault("near_copy", of_patients[-1]) == faults[-1]


def test_what_is_planted_is_what_the_table_of_faults_says() -> None:
    before, after, where = changed()

    def of(kind: str) -> Patient:
        return after[where[kind].split("_")[0]]

    twice = [recording.pcm.tobytes() for recording in of("duplicate").recordings]
    assert len(twice) - len(set(twice)) == 1
    assert not samples(of("silent"), where["silent"]).any()
    assert len(samples(of("short"), where["short"])) == round(0.3 * physiology.SAMPLE_RATE_HZ)
    loudness = np.abs(samples(of("clipped"), where["clipped"]).astype(int))
    assert np.mean(loudness >= 32752) == pytest.approx(0.05, abs=0.01)
    assert not of("not_audio").replaced[where["not_audio"]].startswith(b"RIFF")
    assert (of("truncated").arrived_share, of("missing_file").arrived_share) == (
        {where["truncated"]: 0.6}, {where["missing_file"]: 0.0})
    assert of("unknown_label").row["Murmur"] == "Presnt"
    places = set(of("unrecorded_location").row["Murmur locations"].split("+"))
    assert len(places - {recording.location for recording in of("unrecorded_location").recordings}) == 1
    both = of("contradictory_row")
    assert (both.row["Murmur"], both.text["Murmur"]) == ("Present", "Absent")
    well, sick = where["contradiction"].split(" = ")
    healthy, ill = well.split("_")[0], sick.split("_")[0]
    assert (before[healthy].row["Murmur"], before[ill].row["Murmur"]) == ("Absent", "Present")
    np.testing.assert_array_equal(samples(after[healthy], well), samples(before[ill], sick))


def test_a_near_copy_is_the_same_sound_later_fainter_and_under_another_id() -> None:
    before, after, where = changed()
    copy = after[where["near_copy"]]
    assert where["near_copy"] not in before
    heads = {name: patient for name, patient in before.items() if copy.row == patient.row | {
        "Patient ID": where["near_copy"], "Campaign": "CC2015"}}
    likeness = {name: np.corrcoef(patient.recordings[0].pcm[1000:], copy.recordings[0].pcm)[0, 1]
                for name, patient in heads.items()}
    assert sum(value > 0.95 for value in likeness.values()) == 1
    assert np.abs(copy.recordings[0].pcm).max() < 0.9 * 9000


def test_all_others_stay_as_they_are_and_declared_twins_are_left_alone() -> None:
    before, after, where = changed()
    spoilt = {place.split(" = ")[0].split("_")[0] for place in where.values()}
    assert all(after[name] is patient for name, patient in before.items() if name not in spoilt)
    twins = [replace(p, row=p.row | {"Additional ID": "7"}) if p.row["Patient ID"] in spoilt else p for p in patients()]
    again, faults = planted_faults.plant(twins * 2)
    assert not {fault.where.split(" = ")[0].split("_")[0] for fault in faults} & spoilt - {where["near_copy"]}
    assert len(again) == 2 * len(twins) + 1
