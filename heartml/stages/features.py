"""Stage `features`: `artifacts/<task>/folds.parquet` and `data/audio` in, `artifacts/<task>/features/<encoder>` out.

The folds name every recording by the hash of its samples, and samples are checked against this hash when they are
read. So the folds alone determine the output, and DVC need not look at `data/audio`.

Frames are stored in a cache under the encoder's fingerprint and the recording's hash. So one new recording costs the
work of one recording, and a run that was killed continues where it stopped. At the end the task's frames are packed,
and the packed file becomes the cache (`heartml.models.frame_packs`): frames are on the disk once.

On the CPU each recording is encoded by itself, on the one thread of a worker. That is as fast as batches, and its
bytes cannot depend on other recordings. On a GPU batches have a fixed shape that follows from the recording's length.
"""

from heartml.core import config, folds, paths
from heartml.core.stage import stage
from heartml.core.system.files import replacing_folder
from heartml.core.system.parallel import Part
from heartml.core.tasks import resolve
from heartml.models import encoders, heard
from heartml.models.encoders import EncoderSpec
from heartml.models.frame_cache import Store, device, encode


def run(task: str, encoder: str) -> None:
    """Write the frames of every recording of `task` under `encoder`, each `[frames, dim]`.

    Raises:
        OtherSamplesError: the samples of a recording are not those that it is named after.
        HeardError: the encoder was trained on a group of the task.
    """
    with stage("features", task=task, encoder=encoder) as log:
        spec = encoders.spec(encoder, config.load().for_organ(resolve(task).task.organ))
        recording_ids = _recording_ids(task, spec)
        store = Store.of(spec, device())
        frames = store.view(recording_ids)
        missing = frames.missing()
        encode(missing, spec, store, device())
        encoder_used = encoders.load(spec)
        with replacing_folder(paths.features(task, encoder)) as folder:
            described = encoders.describe(spec, encoder_used)
            frames.pack(folder, encoder_used.frame_rate_hz, described)
        store.keep(paths.features(task, encoder), recording_ids)
        log.add(f"{len(recording_ids)} recordings in, {len(missing)} of them new, {encoder_used.dim} values a frame")


def run_part(task: str, encoder: str, part: Part) -> None:
    """Put one part of the frames into the cache. Several machines can do so; the stage then finds all of them there."""
    with stage("features", task=task, encoder=f"{encoder}.{part.number}") as log:
        spec = encoders.spec(encoder, config.load().for_organ(resolve(task).task.organ))
        store = Store.of(spec, device())
        missing = store.missing(part.of(_recording_ids(task, spec)))
        encode(missing, spec, store, device())
        log.add(f"part {part}: {len(missing)} recordings")


def print_missing(task: str, encoder: str) -> None:
    """Print the recordings of the task without frames, one a line; parts of the work are cut from them."""
    spec = encoders.spec(encoder, config.load().for_organ(resolve(task).task.organ))
    for recording_id in Store.of(spec, device()).missing(_recording_ids(task, spec)):
        print(recording_id)


def _recording_ids(task: str, spec: EncoderSpec) -> list[str]:
    """The recordings of the task and its context, once it is sure that the encoder heard no group that is scored."""
    table = folds.read_heard(paths.folds(task))
    heard.refuse(task, {spec.name: spec.to_json()}, folds.labelled(table))
    return [str(i) for i in table["recording_id"]]
