"""Read stored bytes by their DVC hash, from DVC's cache or a remote. Bytes with another hash are not accepted.

In: a hash as in `data.dvc` and `dvc.lock`, `ab12...` or `ab12....dir`. Out: bytes, folder listings, tables. Nothing is
copied into the working folder.
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


class ObjectNotFound(HeartMLError):  # noqa: N818 - reads as what is the case
    """Neither DVC's cache nor a remote has these bytes. The message says which were tried, and what each replied."""


@dataclass(frozen=True)
class StorageLocation:
    """DVC's cache or one remote: its name in words, and DVC's object for it."""

    name: str
    store: Any

    def read(self, md5: str) -> bytes:
        """The bytes that are stored under this hash. Whether they have this hash is not checked.

        Raises:
            ObjectNotFound: nothing is stored under it, or the storage does not answer.
        """
        try:
            return bytes(self.store.fs.cat_file(self.store.oid_to_path(md5)))
        except FileNotFoundError:
            raise ObjectNotFound("not there") from None
        except Exception as error:  # noqa: BLE001 - every kind of remote has errors of its own
            raise ObjectNotFound(f"no answer: {error}") from None


class Objects:
    """What DVC has stored for this repository. It is opened at the first use."""

    @cached_property
    def places(self) -> tuple[StorageLocation, ...]:
        """The cache first, then the default remote, then the others; empty outside a DVC repository."""
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        try:
            with Repo(".") as repo:
                default = repo.config["core"].get("remote")
                names = sorted(repo.config["remote"], key=lambda name: (name != default, name))
                remotes = [StorageLocation(f"the remote {name}", repo.cloud.get_remote_odb(name)) for name in names]
                return (StorageLocation("DVC's cache", repo.cache.local), *remotes)
        except DvcException:
            return ()

    def read(self, md5: str) -> bytes:
        """The bytes with this hash, from the first storage that has them undamaged.

        Raises:
            ObjectNotFound: none has.
        """
        replies = []
        for place in self.places:
            try:
                found = place.read(md5)
            except ObjectNotFound as gone:
                replies.append(f"{place.name}: {gone}")
                continue
            if has_hash(found, md5):
                return found
            replies.append(f"{place.name}: damaged, its bytes have another hash")
        raise ObjectNotFound("; ".join(replies) or "there is no DVC repository here")

    def listing(self, md5: str) -> dict[str, str]:
        """The files of a folder that DVC tracks: path in the folder -> hash.

        Raises:
            ObjectNotFound: the listing is not stored anywhere.
        """
        return {str(entry["relpath"]): str(entry["md5"]) for entry in json.loads(self.read(md5))}

    def table(self, listing: Mapping[str, str], path: str) -> "pd.DataFrame":
        """One Parquet table of a folder.

        Args:
            listing: of the folder, as `listing` returns it.
            path: of the table in the folder.

        Raises:
            ObjectNotFound: it is not in the listing, or its bytes are not stored anywhere.
        """
        import pandas as pd

        if path not in listing:
            raise ObjectNotFound(f"{path} is not in this version")
        return pd.read_parquet(BytesIO(self.read(listing[path])))


def has_hash(data: bytes, md5: str) -> bool:
    """Whether the MD5 of these bytes is this hash. The hash of a folder's listing ends with `.dir`.

    >>> has_hash(b"", "d41d8cd98f00b204e9800998ecf8427e.dir")
    True
    """
    return hashlib.md5(data, usedforsecurity=False).hexdigest() == md5.removesuffix(".dir")
