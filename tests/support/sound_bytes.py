"""Sound files as bytes: encoded by libsndfile, and what is read of them."""

import io
from pathlib import Path

import numpy as np
import soundfile

from heartml.audio import containers, sound_files
from heartml.audio.containers.extent import Extent


def encoded(pcm: np.ndarray, form: str, subtype: str, rate_hz: int = 8000, **options: object) -> bytes:
    """Samples [time] as a file of this form."""
    memory = io.BytesIO()
    soundfile.write(memory, pcm, rate_hz, format=form, subtype=subtype, **options)
    return memory.getvalue()


def extent(folder: Path, data: bytes) -> Extent:
    """What the container says of its length, for a file with these bytes."""
    path = folder / "sound"
    path.write_bytes(data)
    with path.open("rb", buffering=0) as file:
        return containers.extent(file)


def read(folder: Path, data: bytes) -> sound_files.Samples:
    """The samples of a file with these bytes."""
    (folder / "read").write_bytes(data)
    return sound_files.read(folder / "read")
