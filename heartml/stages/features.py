"""Stage `features`: `artifacts/<task>/folds.parquet` and `data/audio` in, `artifacts/<task>/features/<encoder>` out.

The folds name every recording by the hash of its samples, and samples that are read are held against it: so the folds
alone decide the outcome, and DVC need not look at `data/audio`.

Frames are kept in a store that is addressed by the encoder's fingerprint and the recording's content, so one more
recording costs one recording's work, and a run that was killed goes on where it stopped. Then they are packed.

On the CPU every recording is encoded by itself, on a worker's one thread: that is as fast as in batches there, and its
bytes cannot depend on its neighbours. On a GPU batches have a fixed shape, given by the recording's own length.
"""

import pandas as pd

from heartml.core import config, frame_store, paths
from heartml.core.stage import stage
from heartml.core.system.files import replacing_folder
from heartml.core.system.parallel import Part
from heartml.models import encoders
from heartml.models.frame_cache import Store, device, encode


def run(task: str, encoder: str) -> None:
    """Frames of every recording of `task` under `encoder`."""
    with stage("features", task=task, encoder=encoder) as log:
        spec = encoders.spec(encoder, config.load())
        recording_ids = _recording_ids(task)
        store = Store.of(spec, device())
        missing = [i for i in recording_ids if i not in store]
        encode(missing, spec, store, device())
        encoder_used = encoders.load(spec)
        with replacing_folder(paths.features(task, encoder)) as folder:
            frame_store.write(folder, store.view(recording_ids), encoder_used.frame_rate_hz, spec.to_json())
        log.say(f"{len(recording_ids)} recordings in, {len(missing)} of them new, {encoder_used.dim} values a frame")


def run_part(task: str, encoder: str, part: Part) -> None:
    """Put a part of the frames into the store, on whatever machine: the stage finds them there."""
    with stage("features", task=task, encoder=f"{encoder}.{part.number}") as log:
        spec = encoders.spec(encoder, config.load())
        store = Store.of(spec, device())
        missing = [i for i in part.of(_recording_ids(task)) if i not in store]
        encode(missing, spec, store, device())
        log.say(f"part {part}: {len(missing)} recordings")


def _recording_ids(task: str) -> list[str]:
    return [str(i) for i in pd.read_parquet(paths.folds(task), columns=["recording_id"])["recording_id"]]


