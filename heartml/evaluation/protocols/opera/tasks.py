"""The tasks of the OPERA benchmark that are read here: whose recordings, which of them, and what was published.

Zhang Y. et al., Towards Open Respiratory Acoustic Foundation Models, NeurIPS 2024 (arXiv 2406.16148), and the code that
it names (github.com/evelyn0414/OPERA). The benchmark has seven further classification tasks on collections that are not
read here, and seven regressions.

Beside them stands one task of another benchmark, ICBHI 2017's own: each breath in four classes, on the same split.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pandas as pd

from heartml.core.schema import PUBLISHER_QUALITY, label_column

PUBLISHED_ENCODERS = ("openSMILE", "VGGish", "AudioMAE", "CLAP", "OPERA-CT", "OPERA-CE", "OPERA-GT")
MACRO_AUC, ICBHI_SCORE = "macro_auc", "icbhi_score"


@dataclass(frozen=True)
class NamedSplit:
    """A published split as two lists of the same length, in files of numpy: names of recordings, and their parts."""

    folder: str
    names: str
    parts: str


@dataclass(frozen=True)
class BenchmarkTask:
    """One task of the benchmark.

    Attributes:
        number: of the benchmark; empty for a task of another one.
        title: for people.
        dataset: name of the data set here.
        folders: names under which its folder is looked for.
        label: of `heartml.core.tasks`, or of the breaths (`per_breath`).
        classes: in order.
        usable: recordings table of the layout -> which rows the benchmark takes.
        key: source file -> the name by which the published split knows the recording.
        list_file: a published list of recordings and parts in the data set's folder.
        split: the same as files of numpy.
        validation_share: of the training recordings, where the published split has no validation part.
        batch, epochs: of the probe.
        validated_every: epochs between two looks at the validation part.
        published: encoder -> AUROC, where it is known here.
        metric: of the first column.
        per_breath: each breath is a case.
    """

    name: str
    number: str
    title: str
    dataset: str
    folders: tuple[str, ...]
    label: str
    classes: tuple[str, ...]
    usable: Callable[[pd.DataFrame], "pd.Series[bool]"]
    key: Callable[[str], str]
    list_file: str | None = None
    split: NamedSplit | None = None
    validation_share: float = 0.2
    batch: int = 32
    epochs: int = 64
    validated_every: int = 1
    published: Mapping[str, float] = field(default_factory=dict)
    metric: str = MACRO_AUC
    per_breath: bool = False


def stem(source_file: str) -> str:
    """The name of a file without its folder and its ending.

    >>> stem("a/101_1b1_Al_sc_Meditron.wav"), stem("BP2_N,N,A R U,25,F.wav")
    ('101_1b1_Al_sc_Meditron', 'BP2_N,N,A R U,25,F')
    """
    return PurePosixPath(source_file).with_suffix("").name


def person_and_kind(source_file: str) -> str:
    """The last folder and the name of a file, as Coswara's files are told apart.

    >>> person_and_kind("Extracted_data/20200413/vK2b/cough-shallow.wav")
    'vK2b/cough-shallow'
    """
    path = PurePosixPath(source_file)
    return f"{path.parent.name}/{path.stem}"


def _every(recordings: pd.DataFrame) -> "pd.Series[bool]":
    return pd.Series(True, index=recordings.index)


def _shallow_coughs(recordings: pd.DataFrame) -> "pd.Series[bool]":
    """Shallow coughs that are not poor, of people whose heavy cough is not poor either."""
    good = recordings[PUBLISHER_QUALITY].fillna("good") != "poor"
    heavy = set(recordings.loc[good & (recordings["location"] == "cough-heavy"), "patient_id"])
    return good & (recordings["location"] == "cough-shallow") & recordings["patient_id"].isin(heavy)


def _coughs(recordings: pd.DataFrame) -> "pd.Series[bool]":
    return recordings[PUBLISHER_QUALITY] == "good"


def labels_of(task: BenchmarkTask, recordings: pd.DataFrame) -> "pd.Series[str]":
    """The label of each recording that the benchmark takes; null for the others."""
    return recordings[label_column(task.label)].where(task.usable(recordings))


def _published(*values: float) -> dict[str, float]:
    return dict(zip(PUBLISHED_ENCODERS, values, strict=True))


_ICBHI, _KAUH = ("icbhi", "ICBHI", "ICBHI_2017"), ("kauh", "KAUH")
_COSWARA, _COUGHVID = ("coswara", "Coswara-Data", "Coswara"), ("coughvid", "CoughVID", "COUGHVID")
_OFFICIAL_LIST = "ICBHI_challenge_train_test.txt"


def _coswara(name: str, number: str, title: str, label: str, classes: tuple[str, str]) -> BenchmarkTask:
    split = NamedSplit("feature/coswara_eval", f"cough_aligned_filenames_{label}_w_cough-shallow.npy",
                       f"google_{label}_cough_split.npy")
    return BenchmarkTask(name, number, title, "coswara", _COSWARA, label, classes, _shallow_coughs, person_and_kind,
                         split=split)


def _coughvid(name: str, number: str, title: str, label: str, classes: tuple[str, str], word: str) -> BenchmarkTask:
    split = NamedSplit("feature/coughvid_eval", f"sound_dir_loc_{word}.npy", f"split_{word}.npy")
    return BenchmarkTask(name, number, title, "coughvid", _COUGHVID, label, classes, _coughs, stem, split=split,
                         batch=64)


TASKS: tuple[BenchmarkTask, ...] = (
    _coughvid("coughvid-covid", "T5", "CoughVID: COVID-19 or healthy", "covid", ("COVID-19", "Healthy"), "covid"),
    _coughvid("coughvid-sex", "T6", "CoughVID: sex", "sex", ("Female", "Male"), "gender"),
    BenchmarkTask("icbhi-copd", "T7", "ICBHI 2017: COPD or healthy", "icbhi", _ICBHI, "copd", ("COPD", "Healthy"),
                  _every, stem, list_file=_OFFICIAL_LIST,
                  published=_published(.579, .605, .886, .933, .855, .872, .741)),
    _coswara("coswara-smoker", "T8", "Coswara, shallow coughs: smoker", "smoker", ("Smoker", "Non-smoker")),
    _coswara("coswara-sex", "T9", "Coswara, shallow coughs: sex", "sex", ("Female", "Male")),
    BenchmarkTask("kauh-obstructive", "T10", "KAUH: asthma and COPD, or healthy", "kauh", _KAUH, "obstructive",
                  ("Obstructive", "Healthy"), _every, stem,
                  split=NamedSplit("feature/kauh_eval", "sound_dir_loc_subset.npy", "train_test_split.npy"),
                  validation_share=0.1, epochs=50, validated_every=5,
                  published=_published(.636, .605, .616, .697, .722, .741, .703)),
    BenchmarkTask("icbhi-breaths", "", "ICBHI 2017's own: each breath in four classes", "icbhi", _ICBHI, "",
                  ("normal", "crackle", "wheeze", "crackle and wheeze"), _every, stem, list_file=_OFFICIAL_LIST,
                  metric=ICBHI_SCORE, per_breath=True),
)
