"""Sound files: `read` decodes a file to `Samples`, `write_flac` writes samples without loss.

Samples are int16 where the file has 16 bits or fewer, else int32 of which 24 bits are used (the rest is zero, so that
FLAC holds them without loss). A waveform is float32 [time] in [-1, 1]. Files are decoded by libsndfile, formats of
telephones by ffmpeg where it is installed (`heartml/audio/phone_formats.py`).
"""

import hashlib
import re
import stat
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile

from heartml.audio import containers, phone_formats
from heartml.audio.containers import mp4
from heartml.audio.containers.extent import Correction, Extent
from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import replacing

Waveform = npt.NDArray[np.float32]

MAX_SECONDS = 3600.0              # a heart recording lasts a minute; a wrong header must not fill the memory
MAX_SAMPLES = 60_000_000          # of all channels together: four hours at 4 kHz, twenty minutes at 48 kHz
RATES_HZ = (500, 400_000)
LARGEST_FLOAT = 2.0**31           # full scale of 32-bit integers, which some programs write as floats
_MOST_CORRECTED_BYTES = 1 << 30   # where the header leaves the length open; more than MAX_SAMPLES in any format
_LEAST_BITS = 12                  # of the 24 that are kept, for all samples but the loudest twentieth
_AT_ONCE = 1 << 20
_OPENING = re.compile(r"^Error opening .*?: ")      # followed by a number of this process, not of the file
_UP_TO_16_BITS = {"PCM_S8", "PCM_U8", "PCM_16", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "VORBIS", "OPUS",
                  "MPEG_LAYER_III", "MPEG_LAYER_II", "MPEG_LAYER_I"}


class AudioError(HeartMLError):
    """A file that gives no samples; the message says what to do.

    `reason` is one word: missing, not_audio, unreadable, truncated, longer, empty, nan, stereo, rate, too_long,
    outlier, no_decoder, slow. See `NOT_ABOUT_THE_FILE` for the last two.
    """

    def __init__(self, path: Path, reason: str, detail: str) -> None:
        super().__init__(path, reason, detail)     # all arguments, so that the error can be pickled in a worker process
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.detail}"


NOT_ABOUT_THE_FILE = ("no_decoder", "slow")     # reasons of an `AudioError` that may be gone tomorrow


class OtherSamplesError(HeartMLError):
    """The samples of a recording are not those that it is named after; the message names the recording."""


@dataclass(frozen=True)
class Samples:
    """Decoded samples: int16 or int32 [time], at the file's own sample rate."""

    pcm: npt.NDArray[np.int16] | npt.NDArray[np.int32]
    sample_rate_hz: int

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.pcm) / self.sample_rate_hz

    @property
    def floats(self) -> Waveform:
        """The waveform, float32 [time] in [-1, 1].

        >>> Samples(np.array([0, 16384, -32768], np.int16), 4000).floats.tolist()
        [0.0, 0.5, -1.0]
        """
        full_scale = -float(np.iinfo(self.pcm.dtype).min)
        return np.multiply(self.pcm, np.float32(1 / full_scale), dtype=np.float32)

    @cached_property
    def recording_id(self) -> str:
        """Hex SHA-256 of the little-endian samples. The sample rate is not part of it."""
        return hashlib.sha256(self.pcm.astype(self.pcm.dtype.newbyteorder("<")).tobytes()).hexdigest()


class _Decoded(NamedTuple):
    """What the decoder gives.

    Attributes:
        block: samples [time, channels].
        promised: their number in the header.
        deep: whether they have more than 16 bits.
    """

    block: npt.NDArray[Any]
    promised: int
    sample_rate_hz: int
    deep: bool


def read(path: Path) -> Samples:
    """Decode a mono file, or a file whose channels are all equal.

    Raises:
        AudioError: see its reasons. Nothing is repaired or guessed.
    """
    try:
        with _opened(path) as raw, _readable(path, raw) as sound:
            extent = containers.extent(sound)
            _check_extent(path, extent)
            decoded = _decoded(path, sound, extent.correction)
    except containers.UnknownContainerError:
        raise AudioError(path, *_why_unreadable(path, "not recognised")) from None
    except phone_formats.NotDecodedError as error:
        raise AudioError(path, error.reason, error.detail) from None
    if len(decoded.block) < decoded.promised:
        raise AudioError(path, "truncated", "the header promises more samples than the file holds: copy it again")
    if len(decoded.block) == 0:
        raise AudioError(path, "empty", "0 samples")
    if decoded.deep:
        _check_floats(path, decoded.block)
    mono = _mono(path, decoded.block)
    return Samples(_to_24_bits(mono) if decoded.deep else mono, decoded.sample_rate_hz)


def read_recording(path: Path, recording_id: str) -> Samples:
    """Decode a recording of the data set and check its samples against the hash that it is named by.

    Raises:
        AudioError: the file gives no samples.
        OtherSamplesError: it gives other samples than those that `recording_id` is the hash of.
    """
    samples = read(path)
    if samples.recording_id != recording_id:
        raise OtherSamplesError(f"recording {recording_id[:12]}: its samples are not those it is named after. "
                                f"`{paths.RESTORE_DATA}` brings them back")
    return samples


def _opened(path: Path) -> FileIO:
    """The file, open for reading. libsndfile gets its descriptor, so it cannot judge the file by its name."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):     # a pipe would never end
            raise AudioError(path, "not_audio", "a folder, a pipe or a device, not a sound file")
        return path.open("rb", buffering=0)     # unbuffered: libsndfile reads on from the descriptor's own position
    except FileNotFoundError:
        raise AudioError(path, "missing", "no such file") from None
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else "no file can have this name"
        raise AudioError(path, "unreadable", str(words)) from None


def _readable(path: Path, raw: FileIO) -> FileIO:
    """The file itself, or, where a telephone made it, what ffmpeg decodes it to.

    Raises:
        NotDecodedError: ffmpeg is not there, or cannot decode it.
        AudioError: it ends inside a part.
    """
    form = phone_formats.demuxer(raw.read(16))
    if form is None:
        return raw
    decoded = phone_formats.decode(path, form, MAX_SECONDS + 1, 2 * MAX_SAMPLES + _AT_ONCE)
    try:
        _check_extent(path, mp4.extent(raw) if form == "mov" else Extent())
    except AudioError:
        decoded.close()
        raise
    return decoded


def _check_extent(path: Path, extent: Extent) -> None:
    if extent.missing:
        raise AudioError(path, "truncated", "its container promises more than the file holds: copy it again")
    if extent.unstated:
        raise AudioError(path, "longer", f"its header states less than the file holds, and the last {extent.unstated} "
                                         f"{extent.unit} would be lost: write it again with the right length")


def _decoded(path: Path, raw: FileIO, correction: Correction | None) -> _Decoded:
    """Decode an open file. Whatever the decoder raises for it becomes an `AudioError`."""
    raw.seek(0)
    try:
        source = BytesIO(correction.apply(raw.read(_MOST_CORRECTED_BYTES))) if correction else raw.fileno()
        with soundfile.SoundFile(source, closefd=False) as file:
            _check_header(path, file)
            deep = file.subtype not in _UP_TO_16_BITS
            block = file.read(file.frames, dtype="float64" if deep else "int16", always_2d=True)
            return _Decoded(block, file.frames, file.samplerate, deep)
    except AudioError:
        raise
    except MemoryError:
        raise AudioError(path, "too_long", "it does not fit into the memory") from None
    except Exception as error:  # noqa: BLE001 - whatever libsndfile and its binding raise: one file is refused
        raise AudioError(path, *_why_unreadable(path, str(error) or type(error).__name__)) from None


def _check_header(path: Path, file: Any) -> None:
    if not RATES_HZ[0] <= file.samplerate <= RATES_HZ[1]:
        raise AudioError(path, "rate", f"{file.samplerate} samples a second, not {RATES_HZ[0]} to {RATES_HZ[1]}")
    if file.frames > MAX_SECONDS * file.samplerate:
        raise AudioError(path, "too_long", f"the header promises {file.frames} samples, more than {MAX_SECONDS:.0f} s")
    if file.frames * file.channels > MAX_SAMPLES:
        words = f"the header promises {file.frames} samples in {file.channels} channels, more than {MAX_SAMPLES}"
        raise AudioError(path, "too_long", words)
    if file.channels > 64:
        raise AudioError(path, "stereo", f"{file.channels} channels")


def _why_unreadable(path: Path, message: str) -> tuple[str, str]:
    if path.stat().st_size == 0:
        return "empty", "the file has 0 bytes"
    if "not recognised" in message or "unknown format" in message.lower():
        with_ffmpeg = f"; {phone_formats.NAMES} where {phone_formats.PROGRAM} is installed"
        return "not_audio", f"not a sound file that is read, whatever its name says ({containers.FORMS}{with_ffmpeg})"
    return "unreadable", _OPENING.sub("", message).rstrip(".")


def _check_floats(path: Path, block: npt.NDArray[Any]) -> None:
    """Refuse floats [time, channels] that are no numbers, or one so large that nothing is left of the others."""
    if not np.isfinite(block).all():
        raise AudioError(path, "nan", f"{int((~np.isfinite(block)).sum())} samples are no numbers")
    if detail := outlier(np.abs(block).max(axis=1)):
        raise AudioError(path, "outlier", detail)


def outlier(sizes: npt.NDArray[Any]) -> str:
    """What is wrong with the sizes of float samples [time], in words; empty where nothing is.

    Floats may have any full scale up to that of 32-bit integers. But a sample 4,096 times as large as nearly all others
    is no sound: at the scale that it asks for, half the bits of the others are lost.

    >>> outlier(np.array([0.1, 0.2, 30000.0, 20000.0])), outlier(np.array([0.1, 0.2, 1e30]))[:17]
    ('', 'a sample of 1e+30')
    """
    if not len(sizes):
        return ""
    peak, loudest = float(sizes.max()), max(1, len(sizes) // 20)
    others = float(np.partition(sizes, -loudest - 1)[-loudest - 1]) if len(sizes) > 1 else peak
    if peak > LARGEST_FLOAT or (peak > 1 and others < peak / 2**_LEAST_BITS):
        return (f"a sample of {peak:.3g}, while nearly all others are below {others:.3g} (full scale is 1): export the "
                "recording again")
    return ""


def _mono(path: Path, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[time, channels] -> [time]. Channels that differ are an error: it is not known which one is the heart."""
    first = block[:, 0]
    if not (block == first[:, None]).all():
        raise AudioError(path, "stereo", f"{block.shape[1]} channels that differ: export one of them as a mono file")
    return np.ascontiguousarray(first)


def _to_24_bits(mono: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Float samples [time] as the upper 24 bits of int32. Above full scale they are divided by a power of two.

    >>> (_to_24_bits(np.array([0.5, -1.0])) >> 8).tolist()
    [4194304, -8388608]
    >>> (_to_24_bits(np.array([1.5, -1.0])) >> 8).tolist()      # divided by 2
    [6291456, -4194304]
    """
    peak = float(np.abs(mono).max())
    scale = 2.0 ** -max(0, int(np.ceil(np.log2(peak)))) if peak > 1 else 1.0
    found = np.empty(len(mono), np.int32)
    for start in range(0, len(mono), _AT_ONCE):     # in pieces, because an hour at once needs gigabytes
        steps = np.clip(np.rint(mono[start : start + _AT_ONCE] * scale * 2**23), -(2**23), 2**23 - 1)
        found[start : start + _AT_ONCE] = steps.astype(np.int64) << 8
    return found


def write_flac(path: Path, samples: Samples) -> None:
    """Write samples without loss: `read(path).recording_id == samples.recording_id`."""
    subtype = "PCM_16" if samples.pcm.dtype == np.int16 else "PCM_24"
    encoded = BytesIO()     # on a full disk libsndfile would report a broken decoder
    soundfile.write(encoded, samples.pcm, samples.sample_rate_hz, format="FLAC", subtype=subtype)
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())


