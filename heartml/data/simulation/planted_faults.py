"""Faults as real corpora have them, planted in a simulated one, so that every check has something to find.

In: the patients of the first forty children. Out: the same with faults, and a list of these. What is planted, and what
it imitates:

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
    """One id: its row of the table, its recordings, and where its files are faulty.

    Attributes:
        row: `visits.COLUMNS` -> text, as in the table.
        recordings: one a location.
        text: columns in which the patient's own .txt differs from the table.
        replaced: recording's name -> other bytes for its WAV file; the checksum is of these.
        arrived_share: recording's name -> share of its WAV file that is on disk, 0: no file. The checksum is of the
            whole file.
    """

    row: dict[str, str]
    recordings: tuple[Recording, ...]
    text: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, bytes] = field(default_factory=dict)
    arrived_share: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PlantedFault:
    """One planted fault: its kind and the recording or id that carries it."""

    kind: str
    where: str


def plant(patients: list[Patient]) -> tuple[list[Patient], tuple[PlantedFault, ...]]:
    """Plant every fault, each in another patient.

    Patients with an `Additional ID` do not change. The copy of a child is added at the end under a new id.

    Args:
        patients: of the first `AMONG` children.

    Returns:
        The patients with faults, and a list of the faults.
    """
    chosen = _choose(patients)
    changed: dict[int, Patient] = {}
    faults: list[PlantedFault] = []
    for kind, (plant_fault, _) in _ONE_PATIENT.items():
        at = chosen[kind]
        changed[at], where = plant_fault(patients[at])
        faults.append(PlantedFault(kind, where))
    present, absent = chosen["present"], chosen["absent"]
    changed[absent], where = _contradict(patients[absent], patients[present])
    faults.append(PlantedFault("contradiction", where))
    copy = _near_copy(patients[chosen["near_copy"]])
    faults.append(PlantedFault("near_copy", copy.row["Patient ID"]))
    return [changed.get(at, patient) for at, patient in enumerate(patients)] + [copy], tuple(faults)


def _choose(patients: list[Patient]) -> dict[str, int]:
    """A patient for each fault, each another: the first with all four locations and the label that the fault needs."""
    wanted = {kind: label for kind, (_, label) in _ONE_PATIENT.items()}
    wanted |= {"present": "Present", "absent": "Absent", "near_copy": "Absent"}
    free = [
        at for at, patient in enumerate(patients)
        if patient.row["Additional ID"] == NONE and len(patient.recordings) == len(stethoscope.LOCATIONS)
    ]
    chosen: dict[str, int] = {}
    for kind, label in wanted.items():
        least_locations = 2 if kind == "unrecorded_location" else 0
        chosen[kind] = next(
            at for at in free if patients[at].row["Murmur"] == label
            and patients[at].row["Murmur locations"].count("+") + 1 >= least_locations
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
    start = patient.recordings[0].pcm[: round(_SHORT_S * physiology.SAMPLE_RATE_HZ)]
    return _with_pcm(patient, 0, start, states=[(0.0, _SHORT_S, physiology.UNANNOTATED)])


def _clipped(patient: Patient) -> tuple[Patient, str]:
    pcm = patient.recordings[1].pcm
    return _with_pcm(patient, 1, stethoscope.quantise(pcm / np.quantile(np.abs(pcm), 0.95)))


def _not_audio(patient: Patient) -> tuple[Patient, str]:
    name = patient.recordings[2].name
    return replace(patient, replaced={name: b"Export failed: no recording is selected.\r\n"}), name


def _truncated(patient: Patient) -> tuple[Patient, str]:
    name = patient.recordings[3].name
    return replace(patient, arrived_share={name: 0.6}), name


def _missing_file(patient: Patient) -> tuple[Patient, str]:
    name = patient.recordings[0].name
    return replace(patient, arrived_share={name: 0.0}), name


def _unknown_label(patient: Patient) -> tuple[Patient, str]:
    return replace(patient, row=patient.row | {"Murmur": "Presnt"}), patient.row["Patient ID"]


def _unrecorded_location(patient: Patient) -> tuple[Patient, str]:
    audible = set(patient.row["Murmur locations"].split("+")) - {patient.row["Most audible location"]}
    removed = sorted(audible)[0]
    remaining = tuple(recording for recording in patient.recordings if recording.location != removed)
    places = "+".join(recording.location for recording in remaining)
    row = patient.row | {"Recording locations:": places}
    return replace(patient, row=row, recordings=remaining), row["Patient ID"]


def _contradictory_row(patient: Patient) -> tuple[Patient, str]:
    row = patient.row | {"Murmur": "Present"}
    return replace(patient, row=row, text={"Murmur": "Absent"}), row["Patient ID"]


def _contradict(absent: Patient, present: Patient) -> tuple[Patient, str]:
    loudest = next(r for r in present.recordings if r.location == present.row["Most audible location"])
    patient, where = _with_pcm(absent, 1, loudest.pcm, states=loudest.states)
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


_ONE_PATIENT: dict[str, tuple[Callable[[Patient], tuple[Patient, str]], str]] = {   # and the label that it needs
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
