"""Where every file is, relative to the root of the repository. Paths are written only here."""

import os
from pathlib import Path

PARAMS = Path("params.yaml")
DVC_YAML = Path("dvc.yaml")
DATA = Path("data")
RESTORE_DATA = f"dvc checkout --force {DATA}.dvc"     # without --force DVC replaces no changed file unless it can ask
RECORDINGS = DATA / "recordings.parquet"
ANNOTATIONS = DATA / "annotations.parquet"
QUARANTINE = DATA / "quarantine.parquet"
WITHDRAWN = DATA / "withdrawn.parquet"     # exists once somebody has withdrawn consent
COLLECTIONS = DATA / "collections"   # one mapping file for each data set in a layout of its own
DECLARED_TASKS = DATA / "tasks"      # one file for each of these data sets that declares tasks of its own
ARTIFACTS = Path("artifacts")
REPORTS = Path("reports")          # the finished pages, with the registry's verdict; written by the flow
VALIDATION = ARTIFACTS / "validation"
SPLITS = Path("splits")            # published splits, entered by hand
WEIGHTS = Path("weights")          # of pre-trained encoders: NAME.dvc, and the folder NAME that it tracks
STATE = Path(".heartml")   # locks, caches, unfinished work; also the SQLite stores and the keys
LOCKS = STATE / "locks"
OWN_KEY = STATE / "keys" / "signing.pem"   # private, made once; its public half is signing.pub
TRUSTED_KEYS = Path("keys")        # public keys of others whose signatures are trusted, *.pub


def enclosing_project(folder: Path) -> Path | None:
    """The project that a folder lies in without being it; `None` if it is a project itself, or in none."""
    if (folder / PARAMS).is_file():
        return None
    both = (above for above in folder.parents if (above / PARAMS).is_file() and (above / DVC_YAML).is_file())
    return next(both, None)


def collection(dataset: str) -> Path:
    """The mapping file of a data set that was ingested as `generic`."""
    return COLLECTIONS / f"{dataset}.yaml"


def declared_tasks(dataset: str) -> Path:
    """The tasks that a data set declares in its mapping file, as ingest found them."""
    return DECLARED_TASKS / f"{dataset}.json"


def audio(recording_id: str, folder: Path = DATA / "audio") -> Path:
    """The lossless samples of one recording. There are only sixteen folders: `dvc repro` walks through all of them."""
    return folder / recording_id[:1] / f"{recording_id}.flac"


def cache() -> Path:
    """Results that can be computed again, addressed by content; `HEARTML_CACHE_DIR` moves the folder."""
    return Path(os.environ.get("HEARTML_CACHE_DIR", STATE / "cache"))


def folds(task: str) -> Path:
    """The table of folds: recording_id -> fold or `test`."""
    return ARTIFACTS / task / "folds.parquet"


def features(task: str, encoder: str) -> Path:
    """Frames of every recording of a task under one encoder."""
    return ARTIFACTS / task / "features" / encoder


def pretrained(encoder: str) -> Path:
    """What pre-training makes: the weights, what they were trained on, the loss curves."""
    return ARTIFACTS / "pretrain" / encoder


def search(task: str) -> Path:
    """Trials and their out-of-fold probabilities."""
    return ARTIFACTS / task / "search"


def out_of_fold(task: str) -> Path:
    """The ensemble's out-of-fold probabilities for every unit that is not held out."""
    return ARTIFACTS / task / "out_of_fold.parquet"


def model(task: str) -> Path:
    """The fitted ensemble."""
    return ARTIFACTS / task / "model"


def evaluation(task: str) -> Path:
    """Held-out predictions, metrics, plots."""
    return ARTIFACTS / task / "evaluation"


def heart_states(task: str) -> Path:
    """Heart states of the held-out recordings as the model predicts them, and their agreement with annotations."""
    return ARTIFACTS / task / "heart_states"


def robustness(task: str) -> Path:
    """The held-out scores on degraded recordings."""
    return ARTIFACTS / task / "robustness.json"


def robustness_plot(task: str) -> Path:
    """The same as a table for `dvc plots show`."""
    return ARTIFACTS / task / "robustness.csv"


def report(task: str) -> Path:
    """The page that a person reads."""
    return ARTIFACTS / task / "report.html"
