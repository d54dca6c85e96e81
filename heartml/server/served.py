"""The model that the server answers with: exported once, kept in memory, replaced when the champion changes."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from heartml import export
from heartml.core import config, paths
from heartml.core.config import Params
from heartml.core.system.errors import HeartMLError
from heartml.core.system.hashing import sha256_folder
from heartml.core.system.locks import exclusive
from heartml.export import page
from heartml.inference import exported, model_lookup, predict_exported
from heartml.inference.exported import ExportedModel
from heartml.inference.model_lookup import LocatedModel
from heartml.registry import version_cautions


@dataclass(frozen=True)
class Served:
    """A model, ready to answer.

    Attributes:
        located: where it comes from.
        model: its sessions.
        folder: its export.
        page: the folder of its page; `None` where the page cannot be made.
        no_page: why it cannot, in words; empty where it can.
        params: of params.yaml, when it was loaded.
        since: when it was loaded, ISO 8601.
    """

    located: LocatedModel
    model: ExportedModel
    folder: Path
    page: Path | None
    no_page: str
    params: Params
    since: str

    def as_json(self) -> dict[str, Any]:
        """What `/version` says."""
        facts = self.model.statement
        wanted = ("name", "version", "unit", "classes", "notice", "model_sha256", "run_id", "data", "commit", "licence",
                  "data_licences", "heartml", "compared")
        return {"model": self.located.description, "since": self.since, "cautions": list(self.located.cautions),
                "page": self.page is not None, **{key: facts[key] for key in wanted}}


class Holder:
    """Holds the model; `refresh` loads another one when the one that was asked for is another now.

    Args:
        wanted, task: see `heartml.inference.model_lookup.locate`.
        with_page: whether the page is made, too.
    """

    def __init__(self, wanted: str | None, task: str | None, *, with_page: bool) -> None:
        self._wanted, self._task, self._with_page = wanted, task, with_page
        self._lock = threading.Lock()
        self.served = self._load(self._locate())

    def refresh(self, say: Callable[[str], None]) -> None:
        """Load the model again if another version is meant now. A fault leaves the old one in place, and is said."""
        with self._lock:
            try:
                located = self._locate(verified=False)
                old = self.served.located
                if (located.folder, located.cautions) == (old.folder, old.cautions):
                    return
                self.served = self._load(self._locate())
                say(f"now answers with {located.description}")
            except HeartMLError as error:
                say(f"goes on with {self.served.located.description}: {error}")

    def _locate(self, *, verified: bool = True) -> LocatedModel:
        params = config.load()
        located = model_lookup.locate(self._wanted, self._task, params.tasks, verified=verified)
        version_cautions.check(located.cautions, params.predict)
        return located

    def _load(self, located: LocatedModel) -> Served:
        params = config.load()
        folder = exported_copy(located)
        predict_exported.verify(folder)
        model = ExportedModel.load(folder, lasting=True)
        model.read_whole()
        made, why = self._page(folder, str(model.statement["model_sha256"]))
        return Served(located, model, folder, made, why, params, datetime.now(UTC).isoformat(timespec="seconds"))

    def _page(self, folder: Path, model_sha256: str) -> tuple[Path | None, str]:
        if not self._with_page:
            return None, "the server was started without it (--no-page)"
        place = paths.cache() / "pages" / f"{model_sha256[:16]}-{page.version()}"
        try:
            return place if (place / "files.json").is_file() else page.write(folder, place), ""
        except HeartMLError as error:
            return None, str(error)


def exported_copy(located: LocatedModel) -> Path:
    """The export of a model in the cache; made when it is not there."""
    folder = paths.cache() / "exports" / sha256_folder(located.folder)[:16]
    with exclusive(paths.LOCKS / "export.lock", on_wait="serve: waiting for another export"):
        if not exported.is_export(folder):
            print(f"serve: exporting {located.description} ...", file=sys.stderr, flush=True)
            with ProcessPoolExecutor(1, get_context("spawn")) as apart:      # or torch would stay in this memory
                apart.submit(export.write, located, folder).result()
    return folder
