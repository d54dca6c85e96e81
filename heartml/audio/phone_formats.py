"""Recordings of telephones (M4A, 3GP, AMR, ...): ffmpeg decodes them to WAV in its own process, where it is installed.

The first bytes of a file say what it is, and ffmpeg is told. So it tries no other reader, for instance none of
playlists, which name other files. It opens no address of the network. Time, length and memory are bounded. Where it
reports any error the file is refused: what is left of a damaged recording is not the recording.
"""

import re
import shutil
import subprocess
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile

PROGRAM = "ffmpeg"
NAMES = "M4A, MP4, 3GP, AMR, AAC, WEBM, MKA"      # not WMA: ffmpeg leaves out its first tenth of a second
SUFFIXES = (".m4a", ".m4b", ".mp4", ".mov", ".3gp", ".3gpp", ".3g2", ".amr", ".awb", ".aac", ".webm", ".mka", ".mkv")
TIME_LIMIT_S = 120
_MEMORY_BYTES = 500_000_000      # of one allocation
_EBML = bytes.fromhex("1a45dfa3")


class NotDecodedError(Exception):
    """A recording in one of these formats gave no samples.

    `reason` is one word: no_decoder, slow, unreadable. `detail` says what to do.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def demuxer(start: bytes) -> str | None:
    """ffmpeg's name of the format whose first 16 bytes these are; `None` where it is none of `NAMES`.

    >>> demuxer(b"#!AMR" + bytes(11)), demuxer(b"RIFF" + bytes(12))
    ('amr', None)
    """
    if start[4:8] in (b"ftyp", b"moov"):
        return "mov"
    if start[:5] == b"#!AMR":
        return "amr"
    if start[:4] == _EBML:
        return "matroska"
    is_adts = len(start) > 1 and start[0] == 0xFF and start[1] & 0xF6 == 0xF0
    return "aac" if is_adts else None


def is_installed() -> bool:
    """Whether ffmpeg is there."""
    return shutil.which(PROGRAM) is not None


def decode(path: Path, form: str, most_seconds: float, most_bytes: int) -> FileIO:
    """The sound of a file as 16-bit WAV in a temporary file, at its own rate and with its own channels.

    Args:
        path: of the file.
        form: of `demuxer`.
        most_seconds, most_bytes: where decoding ends. The result is then at least so long.

    Raises:
        NotDecodedError: ffmpeg is not installed, reports an error, or does not end in `TIME_LIMIT_S`.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise NotDecodedError("no_decoder", f"a recording of a telephone ({NAMES}), which is read where {PROGRAM} is "
                                            "installed: install it, or export the recording as WAV")
    result: FileIO = TemporaryFile(buffering=0)  # noqa: SIM115 - the caller's
    try:
        _run([program, *_options(path, form, most_seconds, most_bytes)], result, path)
    except BaseException:
        result.close()
        raise
    return result


def _options(path: Path, form: str, most_seconds: float, most_bytes: int) -> list[str]:
    """ffmpeg's command line. All streams of sound are mapped: WAV takes only one, so that none is left out unseen."""
    references = ["-enable_drefs", "0"] if form == "mov" else []
    return ["-nostdin", "-hide_banner", "-loglevel", "error", "-xerror", "-max_alloc", str(_MEMORY_BYTES),
            "-threads", "1", "-protocol_whitelist", "file", "-err_detect", "explode", *references, "-f", form,
            "-i", f"file:{path.absolute()}", "-map", "0:a", "-map_metadata", "-1", "-c:a", "pcm_s16le",
            "-t", str(most_seconds), "-fs", str(most_bytes), "-bitexact", "-f", "wav", "pipe:1"]


def _run(command: list[str], result: FileIO, path: Path) -> None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=result, stderr=subprocess.PIPE,
                              timeout=TIME_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise NotDecodedError("slow", f"{PROGRAM} did not decode it in {TIME_LIMIT_S} s: export it as WAV") from None
    except OSError as error:
        raise NotDecodedError("no_decoder", f"{PROGRAM} cannot be started: {error.strerror}") from None
    said = _first_line(done.stderr.decode("utf-8", "replace"), path)
    if done.returncode or said:
        words = said or f"exit status {done.returncode}"
        raise NotDecodedError("unreadable", f"{PROGRAM} cannot decode all of it ({words}): copy it again")


def _first_line(said: str, path: Path) -> str:
    """ffmpeg's first message, without the address of its reader in memory and the file's place on this machine.

    >>> _first_line("[aac @ 0x55f3a4] Input buffer exhausted\\n", Path("a.aac"))
    'Input buffer exhausted'
    """
    line = said.strip().split("\n")[0].replace(f"file:{path.absolute()}: ", "")
    return re.sub(r"^\[[^\]]*\] *", "", line)[:200]
