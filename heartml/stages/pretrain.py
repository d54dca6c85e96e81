"""Stage `pretrain`: recordings with heart states and labels in, the weights of the heart encoder out.

In: recordings, annotations, the groups after validation joined near-duplicates, `params.yaml`. Out, in
`artifacts/pretrain/heart/`: `heart.safetensors` (see `heartml.models.encoders.heart`), `curves.csv` (the losses) and
`pretraining.json` (what was heard, under which licences). It is a stage of DVC only where `pretrain.enabled` names it.

Groups that a task is scored on are left out (`heartml.training.pretraining.selection`). The folds of the tasks are
drawn here as the stage `split` draws them, so that this stage does not wait for that. Unfinished work is stored under
`.heartml/pretrain/`, addressed by content.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from heartml.core import config, paths, tasks
from heartml.core.config import Params, PretrainParams
from heartml.core.stage import StageError, stage
from heartml.core.system import code_hash, files, hashing
from heartml.data.splitting.assign import assign_folds
from heartml.data.splitting.published import read_published
from heartml.data.splitting.units import label_units, without_rare
from heartml.models import encoders, frame_cache
from heartml.models.encoders import EncoderSpec
from heartml.models.encoders.logspec import LogspecParams
from heartml.models.frame_cache import Store
from heartml.training.pretraining import corpus, fit, outputs, selection, targets

NAME = "heart"
SPECTROGRAM = "logspec"
_CODE = ("training/pretraining", "models/encoders/heart.py", "models/heads/augmentation.py", "models/heads/noise.py")
_KEY_DIGITS = 16


def run() -> None:
    """Train the heart encoder on what may be heard.

    Raises:
        StageError: there is nothing to learn from, or params.yaml has no section `pretrain`.
    """
    params = config.load()
    own = params.pretrain
    if own is None:
        raise StageError("params.yaml: no section `pretrain`; bring it back with `git checkout params.yaml`")
    with stage("pretrain", encoder=NAME) as log:
        recordings, groups = pd.read_parquet(paths.RECORDINGS), pd.read_parquet(paths.VALIDATION / "groups.parquet")
        heard = selection.allowed(recordings, groups, _folds(recordings, groups, params), own.leave_out)
        selection.need_something(heard, own.simulated_share)
        spec = encoders.spec(SPECTROGRAM, params)
        left_out = groups["group_id"].nunique() - heard["group_id"].nunique()
        log.add(train(heard, left_out, spec, own, paths.pretrained(NAME)))


def train(heard: pd.DataFrame, left_out: int, spec: EncoderSpec, own: PretrainParams, to: Path) -> str:
    """Train on the recordings `heard` and write the outputs.

    Args:
        heard: schema.RECORDINGS with labels.
        left_out: number of groups that are not among them.
        spec: of the spectrogram.
        to: the folder that is written.

    Returns:
        The stage's line.
    """
    key = content_key(heard, spec, own)
    if _is_done(to, key):
        return f"{to}: trained already on these recordings, with these parameters and this code"
    folder = paths.STATE / "pretrain" / key
    found = corpus.build(heard, _frames(heard, spec), pd.read_parquet(paths.ANNOTATIONS), spec,
                         simulated_children=own.simulated_children, seed=own.seed)
    network, curves = fit.train(found, own, folder / "checkpoint.safetensors", say=_say)
    labelled = {name: int((labels != targets.UNKNOWN).sum()) for name, labels in found.labels.items()}
    spectrogram = spec.sections[SPECTROGRAM]
    assert isinstance(spectrogram, LogspecParams)
    facts = {**outputs.describe(heard, left_out, labelled, own), "key": key}
    with files.replacing_folder(to) as new:
        outputs.write(new, network.trunk, spectrogram, heard, curves, facts)
    shutil.rmtree(folder)
    groups, made = heard["group_id"].nunique(), int(found.simulated.sum())
    weights = sum(p.numel() for p in network.trunk.parameters())
    return (f"{len(heard)} recordings of {groups} groups and {made} simulated ones in, {left_out} groups left out "
            f"because a task is scored on them, {weights:,} weights out")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _is_done(folder: Path, key: str) -> bool:
    """Whether the outputs are those of this training, so that a registration need not repeat it."""
    facts = folder / outputs.FACTS
    return facts.exists() and (folder / outputs.WEIGHTS).exists() and files.read_json(facts).get("key") == key


def content_key(heard: pd.DataFrame, spec: EncoderSpec, own: PretrainParams) -> str:
    """16 hex digits over all that the weights depend on: recordings and labels, parameters, code, libraries."""
    values = [heard.to_csv(index=False), hashing.sha256_file(paths.ANNOTATIONS), encoders.fingerprint(spec),
              own.model_dump(mode="json", exclude={"enabled", "checkpoint_s"}), code_hash.fingerprint(*_CODE)]
    return hashing.sha256(files.canonical_json(values).encode())[:_KEY_DIGITS]


def _frames(heard: pd.DataFrame, spec: EncoderSpec) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Log-spectrograms of the recordings, from the cache where the stage `features` has made them."""
    recording_ids = [str(i) for i in heard["recording_id"]]
    device = frame_cache.device()
    store = Store.of(spec, device)
    frame_cache.encode([i for i in recording_ids if i not in store], spec, store, device)
    view = store.view(recording_ids)
    return [view[i].astype(np.float32) for i in recording_ids]


def _folds(recordings: pd.DataFrame, groups: pd.DataFrame, params: Params) -> dict[str, pd.DataFrame]:
    """The folds of every task of params.yaml, as the stage `split` draws them."""
    found = {}
    for name in params.tasks:
        assignment, own = tasks.resolve(name), params.split.for_task(name)
        units = without_rare(label_units(recordings, groups, assignment), assignment, params.validate_.min_class_groups)
        published = read_published(own.published) if own.published else None
        found[name] = assign_folds(units, own, params.seed, published)
    return found
