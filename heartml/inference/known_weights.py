"""Weights whose publisher gives an address: what they are called, where they are, and what their licence asks for.

In: a name. Out: the file, in `.heartml/downloads/weights/NAME`. Nothing here is fetched unless `heartml weights fetch`
is called. A file whose hash is not known here is taken as it arrives; its hash is pinned when it is added.
"""

from dataclasses import dataclass
from pathlib import Path

from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.core.system.text import did_you_mean
from heartml.data.ingest import download

_EFFICIENTAT = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/"
_BYOL_A = "https://github.com/nttcslab/byol-a/raw/HEAD/pretrained_weights/"


class FetchError(HeartMLError):
    """There is no address for these weights, or their licence has not been accepted."""


@dataclass(frozen=True)
class KnownWeights:
    """Weights with an address.

    Attributes:
        address: of the folder on the server, with a slash at its end.
        sha256: `None` where it is not known here.
        terms: where the licence can be read, for weights whose licence has to be accepted first; else empty.
    """

    kind: str
    address: str
    file: str
    licence: str
    sha256: str | None = None
    terms: str = ""


KNOWN: dict[str, KnownWeights] = {
    "mn04_as": KnownWeights("efficientat", _EFFICIENTAT, "mn04_as_mAP_432.pt", "MIT",
                            "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c"),
    "mn05_as": KnownWeights("efficientat", _EFFICIENTAT, "mn05_as_mAP_443.pt", "MIT"),
    "mn10_as": KnownWeights("efficientat", _EFFICIENTAT, "mn10_as_mAP_471.pt", "MIT"),
    "mn20_as": KnownWeights("efficientat", _EFFICIENTAT, "mn20_as_mAP_478.pt", "MIT"),
    "mn30_as": KnownWeights("efficientat", _EFFICIENTAT, "mn30_as_mAP_482.pt", "MIT"),
    "mn40_as": KnownWeights("efficientat", _EFFICIENTAT, "mn40_as_mAP_484.pt", "MIT"),
    "byol_a_d512": KnownWeights("byol_a", _BYOL_A, "AudioNTT2020-BYOLA-64x96d512.pth", "NTT: evaluation only",
                                terms="https://github.com/nttcslab/byol-a/blob/HEAD/LICENSE.pdf"),
}


def find(name: str, *, accepted: bool) -> KnownWeights:
    """The weights of this name.

    Args:
        accepted: whether the user accepts their licence.

    Raises:
        FetchError: there are none, or their licence has to be accepted.
    """
    if name not in KNOWN:
        near = did_you_mean(name, tuple(KNOWN))
        raise FetchError(f"{name!r}: no address is known. There are {', '.join(KNOWN)}.{near} Other files: get them "
                         "from their publisher, then `heartml weights add`")
    found = KNOWN[name]
    if found.terms and not accepted:
        raise FetchError(f"{name}: its licence ({found.licence}) is at {found.terms}. If you accept it: "
                         f"`heartml weights fetch {name} --accept-licence`")
    return found


def fetch(name: str, mirror: str | None, *, accepted: bool, wait_s: float = download.WAIT_S) -> Path:
    """Download weights; what has arrived is kept, and continued.

    Args:
        mirror: an address with the same file, instead of the publisher's.

    Raises:
        FetchError: see `find`.
        DownloadError: the server refuses, or the file does not arrive with the hash that is known.
    """
    known = find(name, accepted=accepted)
    address = f"{mirror.rstrip('/')}/" if mirror else known.address
    folder = paths.STATE / "downloads" / "weights" / name
    return download.fetch_file(address, known.file, folder, known.sha256, wait_s=wait_s)
