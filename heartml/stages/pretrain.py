"""Stage `pretrain`: recordings with heart states and labels in, the weights of an encoder out.

In: recordings, annotations, the groups after validation joined near-duplicates, `params.yaml`. Out, in
`artifacts/pretrain/heart/`: `heart.safetensors` (see `heartml.models.encoders.heart`), `curves.csv` (the losses) and
`pretraining.json` (what was heard, under which licences). It is a stage of DVC only where `pretrain.enabled` names it.

With another method than `heart` a transformer is trained (`heartml.training.pretraining.vit`), and the folder is
`artifacts/pretrain/<method>/`. Such a training is no stage of DVC.

Groups that a task is scored on are left out (`heartml.training.pretraining.selection`). The folds of the tasks are
drawn here as the stage `split` draws them, so that this stage does not wait for that. Unfinished work is stored under
`.heartml/pretrain/`, addressed by content.
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from heartml.audio import sound_files
from heartml.core import config, paths, tasks
from heartml.core.config import Params, PretrainParams, VitParams
from heartml.core.folds import labelled
from heartml.core.stage import StageError, stage
from heartml.core.system import code_hash, files, hashing
from heartml.core.system.progress import track
from heartml.core.task_definition import HEART
from heartml.data import organs
from heartml.data.splitting.task_draw import draw
from heartml.models import encoders, frame_cache
from heartml.models import heard as heard_arrays
from heartml.models.encoders import EncoderSpec
from heartml.models.encoders.logspec import LogspecParams
from heartml.models.frame_cache import Store
from heartml.training.pretraining import corpus, fit, general, outputs, selection, targets
from heartml.training.pretraining.corpus import Corpus
from heartml.training.pretraining.vit import outputs as vit_outputs
from heartml.training.pretraining.vit import start as starts
from heartml.training.pretraining.vit import train as vit_train
from heartml.training.pretraining.vit.start import LogMelPicture, Start
from heartml.training.pretraining.vit.train import Method, Trained

NAME = "heart"
SPECTROGRAM = "logspec"
RANDOM = "random"          # instead of a file: fresh weights
_CODE = ("training/pretraining", "models/encoders/heart.py", "models/residual_block.py", "models/heads/augmentation.py",
         "models/heads/noise.py")
_VIT_CODE = (*_CODE, "models/encoders/m2d.py", "models/encoders/mel.py", "audio/preprocessing.py")
_KEY_DIGITS = 16
_DONE = "trained already on these recordings, with these parameters and this code"


@dataclass(frozen=True)
class Heard:
    """What an encoder may hear.

    Attributes:
        recordings: schema.RECORDINGS with labels.
        left_out: groups that are not among them, because a task is scored on them.
        forbidden: recordings of these groups.
    """

    recordings: pd.DataFrame
    left_out: int
    forbidden: frozenset[str]


def run(method: Method | Literal["heart"] = "heart", start_from: str | None = None, general_sound: Path | None = None
        ) -> None:
    """Train an encoder on what may be heard.

    Args:
        method: `heart`: the heart encoder; others: a transformer.
        start_from: a checkpoint in M2D's format whose weights the transformer starts from, or `random`; `None`: random.
        general_sound: a folder of other sounds for the transformer.

    Raises:
        StageError: there is nothing to learn from, params.yaml has no section `pretrain`, or nothing says the shape of
            the weights to start from.
        WeightsError: these weights cannot be used.
    """
    params = config.load()
    own = params.pretrain
    vit = own.vit if own else None
    if own is None or (method != "heart" and vit is None):
        raise StageError(f"params.yaml: no section `pretrain{'.vit' if own else ''}`; bring it back with "
                         "`git checkout params.yaml`")
    with stage("pretrain", encoder=method) as log:
        heard = _allowed(params, own)
        if method == "heart":
            spec = encoders.spec(SPECTROGRAM, params)
            log.add(train(heard.recordings, heard.left_out, spec, own, paths.pretrained(NAME)))
        elif vit is not None:
            log.add(_train_vit(_VitJob(method, _start(start_from, own, vit), general_sound, own, vit, params), heard))


def _start(start_from: str | None, own: PretrainParams, vit: VitParams) -> Start:
    if start_from in (None, RANDOM):
        return starts.fresh(vit, own.seed)
    try:
        return starts.of_file(Path(str(start_from)))
    except ValueError as error:
        raise StageError(f"--start-from {start_from}: {error}. Name its folder so, or let `heartml weights add "
                         f"{start_from} --kind m2d --set KEY=VALUE` keep it") from None


def _allowed(params: Params, own: PretrainParams) -> Heard:
    recordings, groups = pd.read_parquet(paths.RECORDINGS), pd.read_parquet(paths.VALIDATION / "groups.parquet")
    hearts = recordings[organs.of_recordings(recordings) == HEART]
    heard = selection.allowed(hearts, groups, _folds(recordings, groups, params), own.leave_out)
    selection.need_something(heard, own.simulated_share)
    return Heard(heard, groups["group_id"].nunique() - heard["group_id"].nunique(),
                 frozenset(recordings["recording_id"]) - frozenset(heard["recording_id"]))


@dataclass(frozen=True)
class _VitJob:
    method: Method
    start: Start
    general_sound: Path | None
    own: PretrainParams
    vit: VitParams
    params: Params

    def settings(self) -> dict[str, Any]:
        """The parameters that the weights depend on."""
        shared = self.own.model_dump(mode="json", include={
            "leave_out", "simulated_children", "simulated_share", "dropout", "frame_weight", "other_weight", "seed"})
        return {**shared, "method": self.method, "steps": vit_train.steps_of(self.method, self.vit),
                "start_from": self.start.sha256 or RANDOM, "shape": dict(self.start.shape),
                "width": self.start.width, "depth": len(self.start.transformer.blocks),
                **self.vit.model_dump(mode="json", exclude={"input_size", "patch_size", "heads", "width", "depth"})}


def _train_vit(job: _VitJob, heard: Heard) -> str:
    """Train the transformer and write the outputs; the stage's line."""
    to, own, table = paths.pretrained(job.method), job.own, heard.recordings
    picture = LogMelPicture(job.start, job.params.audio)
    other = None if job.general_sound is None else general.read(
        job.general_sound, job.vit.general_hours, own.seed, picture, heard.forbidden, _say)
    everything = table if other is None else pd.concat([table, other.table], ignore_index=True)
    key = _vit_key(job, everything)
    if _is_done(to, f"*/{vit_outputs.WEIGHTS}", key):
        return f"{to}: {_DONE}"
    folder = paths.STATE / "pretrain" / key
    facts = vit_outputs.Facts(job.start.shape, heard_arrays.united(
        job.start.heard, heard_arrays.arrays(everything)))

    def keep(step: int, transformer: Any, stats: Any) -> None:
        place = vit_outputs.folder_of(folder / vit_outputs.SNAPSHOTS / str(step), transformer, facts)
        vit_outputs.write_weights(place / vit_outputs.WEIGHTS, transformer, stats, facts)

    found = corpus.build(table, _pictures(table, picture), pd.read_parquet(paths.ANNOTATIONS), picture,
                         simulated_children=own.simulated_children, seed=own.seed,
                         general=() if other is None else other.frames)
    trained = vit_train.train(job.method, job.start, found, own, job.vit, folder / "checkpoint.safetensors",
                              snapshot=keep, say=_say, device=frame_cache.device())
    words = {**outputs.describe(everything, heard.left_out, _labelled(found), own), "parameters": job.settings(),
             "key": key}
    place = _put(to, folder, trained, facts, words)
    count = sum(p.numel() for p in trained.transformer.parameters())
    return (f"{len(table)} recordings of {table['group_id'].nunique()} groups, {int(found.simulated.sum())} simulated "
            f"ones and {int(found.general.sum())} general sounds in, {heard.left_out} groups left out because a task "
            f"is scored on them, {count:,} weights out: {place}")


def _put(to: Path, unfinished: Path, trained: Trained, facts: vit_outputs.Facts, words: dict[str, Any]) -> Path:
    """Write the outputs with the snapshots of an `unfinished` training, which is removed; the file of weights."""
    with files.replacing_folder(to) as new:
        weights = vit_outputs.write(new, trained, facts, words)
        if (unfinished / vit_outputs.SNAPSHOTS).exists():
            shutil.copytree(unfinished / vit_outputs.SNAPSHOTS, new / vit_outputs.SNAPSHOTS)
    shutil.rmtree(unfinished)
    return to / weights.relative_to(new)


def _pictures(table: pd.DataFrame, picture: LogMelPicture) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float16]]]:
    """Spectrograms of the recordings; they are made anew each time."""
    found = []
    for recording_id in track([str(i) for i in table["recording_id"]], "pretrain: spectrograms", len(table)):
        samples = sound_files.read_recording(paths.audio(recording_id), recording_id)
        found.append(picture(samples.floats, samples.sample_rate_hz))
    return found


def _vit_key(job: _VitJob, table: pd.DataFrame) -> str:
    """16 hex digits over all that the weights depend on, see `content_key`."""
    values = [table.to_csv(index=False), hashing.sha256_file(paths.ANNOTATIONS), job.settings(),
              job.params.audio.model_dump(mode="json"), frame_cache.device(), code_hash.fingerprint(*_VIT_CODE)]
    return hashing.sha256(files.canonical_json(values).encode())[:_KEY_DIGITS]


def _labelled(found: Corpus) -> dict[str, int]:
    """Target -> number of recordings with a label."""
    return {name: int((labels != targets.UNKNOWN).sum()) for name, labels in found.labels.items()}


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
    if _is_done(to, outputs.WEIGHTS, key):
        return f"{to}: {_DONE}"
    folder = paths.STATE / "pretrain" / key
    found = corpus.build(heard, _frames(heard, spec), pd.read_parquet(paths.ANNOTATIONS), corpus.EncoderPicture(spec),
                         simulated_children=own.simulated_children, seed=own.seed)
    network, curves = fit.train(found, own, folder / "checkpoint.safetensors", say=_say)
    spectrogram = spec.sections[SPECTROGRAM]
    assert isinstance(spectrogram, LogspecParams)
    facts = {**outputs.describe(heard, left_out, _labelled(found), own), "key": key}
    with files.replacing_folder(to) as new:
        outputs.write(new, network.trunk, spectrogram, heard, curves, facts)
    shutil.rmtree(folder)
    groups, made = heard["group_id"].nunique(), int(found.simulated.sum())
    weights = sum(p.numel() for p in network.trunk.parameters())
    return (f"{len(heard)} recordings of {groups} groups and {made} simulated ones in, {left_out} groups left out "
            f"because a task is scored on them, {weights:,} weights out")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _is_done(folder: Path, weights: str, key: str) -> bool:
    """Whether the outputs are those of this training, so that a registration need not repeat it."""
    facts = folder / outputs.FACTS
    return facts.exists() and any(folder.glob(weights)) and files.read_json(facts).get("key") == key


def content_key(heard: pd.DataFrame, spec: EncoderSpec, own: PretrainParams) -> str:
    """16 hex digits over all that the weights depend on: recordings and labels, parameters, code, libraries."""
    values = [heard.to_csv(index=False), hashing.sha256_file(paths.ANNOTATIONS), encoders.fingerprint(spec),
              own.model_dump(mode="json", exclude=outputs.NOT_LEARNT_FROM), code_hash.fingerprint(*_CODE)]
    return hashing.sha256(files.canonical_json(values).encode())[:_KEY_DIGITS]


def _frames(heard: pd.DataFrame, spec: EncoderSpec) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Log-spectrograms of the recordings, from the cache where the stage `features` has made them."""
    recording_ids = [str(i) for i in heard["recording_id"]]
    device = frame_cache.device()
    store = Store.of(spec, device)
    frame_cache.encode(store.missing(recording_ids), spec, store, device)
    view = store.view(recording_ids)
    return [view[i].astype(np.float32) for i in recording_ids]


def _folds(recordings: pd.DataFrame, groups: pd.DataFrame, params: Params) -> dict[str, pd.DataFrame]:
    """The folds of every task of params.yaml, as the stage `split` draws them."""
    found = {}
    for name in params.tasks:
        found[name] = labelled(draw(tasks.resolve(name), recordings, groups, params).folds)
    return found
