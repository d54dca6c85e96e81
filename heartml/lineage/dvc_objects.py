"""Bytes by their DVC hash, from DVC's cache or one of its remotes; what does not have that hash does not count.

In: `ab12...` or `ab12....dir`, as `data.dvc` and `dvc.lock` have them. Nothing is copied into the working folder.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any

from heartml.core.system.errors import HeartMLError

if TYPE_CHECKING:
    import pandas as pd


class Gone(HeartMLError):  # noqa: N818 - reads as what is the case
    """No place has these bytes; the message says where was looked and what each place said."""


@dataclass(frozen=True)
class Place:
    """DVC's cache, or one remote: `name` in words, `store` as DVC has it."""

    name: str
    store: Any

    def read(self, md5: str) -> bytes:
        """The bytes that are stored under this hash, right or wrong.

        Raises:
            Gone: nothing is stored under it, or the place does not answer.
        """
        try:
            return bytes(self.store.fs.cat_file(self.store.oid_to_path(md5)))
        except FileNotFoundError:
            raise Gone("not there") from None
        except Exception as error:  # noqa: BLE001 - every kind of remote has errors of its own
            raise Gone(f"no answer: {error}") from None


class Objects:
    """What DVC has stored from this repository; opened when it is first asked."""

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """The cache first, then the default remote, then the others; empty outside a DVC repository."""
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        try:
            with Repo(".") as repo:
                default = repo.config["core"].get("remote")
                names = sorted(repo.config["remote"], key=lambda name: (name != default, name))
                remotes = [Place(f"the remote {name}", repo.cloud.get_remote_odb(name)) for name in names]
                return (Place("DVC's cache", repo.cache.local), *remotes)
        except DvcException:
            return ()

    def read(self, md5: str) -> bytes:
        """The bytes with this hash, from the first place that has them whole.

        Raises:
            Gone: none has.
        """
        said = []
        for place in self.places:
            try:
                found = place.read(md5)
            except Gone as gone:
                said.append(f"{place.name}: {gone}")
                continue
            if is_of(found, md5):
                return found
            said.append(f"{place.name}: damaged, its bytes have another hash")
        raise Gone("; ".join(said) or "there is no DVC repository here")

    def listing(self, md5: str) -> dict[str, str]:
        """The files of a folder that DVC tracks: path in it -> hash.

        Raises:
            Gone: the listing is nowhere.
        """
        return {str(entry["relpath"]): str(entry["md5"]) for entry in json.loads(self.read(md5))}

    def table(self, listing: Mapping[str, str], path: str) -> "pd.DataFrame":
        """One Parquet table of a folder.

        Raises:
            Gone: it is not in the listing, or its bytes are nowhere.
        """
        import pandas as pd

        if path not in listing:
            raise Gone(f"{path} is not in this version")
        return pd.read_parquet(BytesIO(self.read(listing[path])))


def is_of(data: bytes, md5: str) -> bool:
    """Whether bytes have this hash; a folder's listing is named `<md5>.dir`."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest() == md5.removesuffix(".dir")
