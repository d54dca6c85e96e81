"""Faults of the kinds that real corpora have, planted in a simulated one, so that every check has something to find.

All lie among the first forty children of a corpus, whatever its size. What is planted, and what it imitates:

| fault | what is done | seen in |
| --- | --- | --- |
| near_copy | a child's recordings under a second id: cut, fainter, with hiss; no `Additional ID` | PASCAL 103, 146 |
| contradiction | the same samples for a child with a murmur and for one without | PASCAL murmur / extrahls |
| duplicate | one file uploaded for two locations of a child | BMD-HS, 5 pairs |
| truncated | the file ends early, its checksum is of the whole | broken transfers |
| silent | every sample zero | broken cables |
| not_audio | text under the name of a .wav | exports that failed |
| short | 0.3 s only | slipped stethoscopes |
| clipped | one sample in twenty at full scale | PASCAL, 11 files |
| missing_file | listed by the child's .txt, and not there | BMD-HS MD_085 |
| unknown_label | `Murmur: Presnt` | typing |
| unrecorded_location | a murmur heard at a location of which there is no recording | CirCor |
| contradictory_row | the table says Present, the child's own .txt Absent | edited tables |

Children who come back under a second id that is declared (`Additional ID`, CirCor's 70 pairs) belong to every corpus.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from heartml.data.simulation import physiology, stethoscope
from heartml.data.simulation.children import NONE
from heartml.data.simulation.visits import Recording

AMONG = 40          # the faults lie among this many first children
_COPY_ID = 95_001   # beyond every other id
_CUT_S = 0.25
_SHORT_S = 0.3


@dataclass(frozen=True)
class Patient:
    """One id: its row of the table, its recordings, and where the files differ from what they were meant to be.

    Attributes:
        row: `visits.COLUMNS` -> text, as the table says.
        recordings: one a location.
        text: what the patient's own .txt says where that is not what the table says.
        instead: recording's name -> bytes that stand in the place of its WAV file, checksum included.
        arrived: recording's name -> share of its WAV file that is there, the checksum being of the whole; 0: no file.
    """

    row: dict[str, str]
    recordings: tuple[Recording, ...]
    text: dict[str, str] = field(default_factory=dict)
    instead: dict[str, bytes] = field(default_factory=dict)
    arrived: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PlantedFault:
    """One planted fault: its kind and the recording or id that carries it."""

    kind: str
    where: str


def plant(patients: list[Patient]) -> tuple[list[Patient], tuple[PlantedFault, ...]]:
    """The patients of the first `AMONG` children with every fault planted, each in a patient of its own.

    Patients with an `Additional ID` are left alone. A copied child is put behind the others under a new id.
    """
    chosen = _choose(patients)
    changed: dict[int, Patient] = {}
    faults: list[PlantedFault] = []
    for kind, (spoil, _) in _ONE_PATIENT.items():
        at = chosen[kind]
        changed[at], where = spoil(patients[at])
        faults.append(PlantedFault(kind, where))
    sick, well = chosen["sick"], chosen["well"]
    changed[well], where = _contradict(patients[well], patients[sick])
    faults.append(PlantedFault("contradiction", where))
    copy = _near_copy(patients[chosen["near_copy"]])
    faults.append(PlantedFault("near_copy", copy.row["Patient ID"]))
    return [changed.get(at, patient) for at, patient in enumerate(patients)] + [copy], tuple(faults)


def _choose(patients: list[Patient]) -> dict[str, int]:
    """A different patient for each fault: the first with all four locations and the label that the fault wants."""
    wanted = {kind: label for kind, (_, label) in _ONE_PATIENT.items()}
    wanted |= {"sick": "Present", "well": "Absent", "near_copy": "Absent"}
    free = [
        at for at, patient in enumerate(patients)
        if patient.row["Additional ID"] == NONE and len(patient.recordings) == len(stethoscope.LOCATIONS)
    ]
    chosen: dict[str, int] = {}
    for kind, label in wanted.items():
        heard = 2 if kind == "unrecorded_location" else 0
        chosen[kind] = next(
            at for at in free if patients[at].row["Murmur"] == label
            and patients[at].row["Murmur locations"].count("+") + 1 >= heard
        )
        free.remove(chosen[kind])
    return chosen


def _with_pcm(patient: Patient, at: int, pcm: stethoscope.Pcm, **changes: object) -> tuple[Patient, str]:
    """The patient with other samples in recording `at`, and that recording's name."""
    recording = replace(patient.recordings[at], pcm=pcm, **changes)   # type: ignore[arg-type]
    recordings = (*patient.recordings[:at], recording, *patient.recordings[at + 1 :])
    return replace(patient, recordings=recordings), recording.name


def _duplicate(patient: Patient) -> tuple[Patient, str]:
    first = patient.recordings[1]
    return _with_pcm(patient, 2, first.pcm, states=first.states)


def _silent(patient: Patient) -> tuple[Patient, str]:
    return _with_pcm(patient, 3, np.zeros_like(patient.recordings[3].pcm))


def _short(patient: Patient) -> tuple[Patient, str]:
    kept = patient.recordings[0].pcm[: round(_SHORT_S * physiology.SAMPLE_RATE_HZ)]
    return _with_pcm(patient, 0, kept, states=[(0.0, _SHORT_S, physiology.UNANNOTATED)])


def _clipped(patient: Patient) -> tuple[Patient, str]:
    pcm = patient.recordings[1].pcm
    return _with_pcm(patient, 1, stethoscope.quantise(pcm / np.quantile(np.abs(pcm), 0.95)))


def _not_audio(patient: Patient) -> tuple[Patient, str]:
    name = patient.recordings[2].name
    return replace(patient, instead={name: b"Export failed: no recording is selected.\r\n"}), name


def _truncated(patient: Patient) -> tuple[Patient, str]:
    name = patient.recordings[3].name
    return replace(patient, arrived={name: 0.6}), name


def _missing_file(patient: Patient) -> tuple[Patient, str]:
    name = patient.recordings[0].name
    return replace(patient, arrived={name: 0.0}), name


def _unknown_label(patient: Patient) -> tuple[Patient, str]:
    return replace(patient, row=patient.row | {"Murmur": "Presnt"}), patient.row["Patient ID"]


def _unrecorded_location(patient: Patient) -> tuple[Patient, str]:
    heard = set(patient.row["Murmur locations"].split("+")) - {patient.row["Most audible location"]}
    lost = sorted(heard)[0]
    kept = tuple(recording for recording in patient.recordings if recording.location != lost)
    places = "+".join(recording.location for recording in kept)
    row = patient.row | {"Recording locations:": places}
    return replace(patient, row=row, recordings=kept), row["Patient ID"]


def _contradictory_row(patient: Patient) -> tuple[Patient, str]:
    row = patient.row | {"Murmur": "Present"}
    return replace(patient, row=row, text={"Murmur": "Absent"}), row["Patient ID"]


def _contradict(well: Patient, sick: Patient) -> tuple[Patient, str]:
    loudest = next(r for r in sick.recordings if r.location == sick.row["Most audible location"])
    patient, where = _with_pcm(well, 1, loudest.pcm, states=loudest.states)
    return patient, f"{where} = {loudest.name}"


def _near_copy(patient: Patient) -> Patient:
    """The same child under another id, as if recorded again from a loudspeaker."""
    rng = np.random.default_rng(int(patient.row["Patient ID"]))
    other = {"CC2014": "CC2015", "CC2015": "CC2014"}[patient.row["Campaign"]]
    recordings = tuple(_copied(recording, rng) for recording in patient.recordings)
    return Patient(patient.row | {"Patient ID": str(_COPY_ID), "Campaign": other}, recordings)


def _copied(recording: Recording, rng: np.random.Generator) -> Recording:
    pcm = recording.pcm[round(_CUT_S * physiology.SAMPLE_RATE_HZ) :]
    fainter = stethoscope.quantise(0.8 * pcm / 32768 + rng.normal(0, 3e-4, len(pcm)))
    moved = [(max(a - _CUT_S, 0.0), b - _CUT_S, code) for a, b, code in recording.states if b > _CUT_S]
    return Recording(f"{_COPY_ID}_{recording.location}", recording.location, fainter, moved)


_ONE_PATIENT: dict[str, tuple[Callable[[Patient], tuple[Patient, str]], str]] = {   # label: whom it spoils
    "duplicate": (_duplicate, "Absent"),
    "truncated": (_truncated, "Absent"),
    "silent": (_silent, "Absent"),
    "not_audio": (_not_audio, "Absent"),
    "short": (_short, "Absent"),
    "clipped": (_clipped, "Absent"),
    "missing_file": (_missing_file, "Present"),
    "unknown_label": (_unknown_label, "Present"),
    "unrecorded_location": (_unrecorded_location, "Present"),
    "contradictory_row": (_contradictory_row, "Absent"),
}
