"""Everything that an audit looks at, fetched once: the run's files, the stored model, the lock, the code of the commit.

Nothing is taken from this working folder but git's objects, DVC's cache and remotes, and the keys that are trusted.
What is not there raises `Lost`, so that the link which needs it is missing, and the others are still looked at.
"""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from heartml.audit.git_tree import Tree
from heartml.audit.links import Lost, Wrong
from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.core.tasks import Task, resolve
from heartml.lineage import capture
from heartml.lineage.dvc_objects import Objects
from heartml.registry import model_files, signing, tracking
from heartml.registry.signing import Signed, keys
from heartml.registry.tracking import Client, Run
from heartml.registry.versions import Version

_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)      # ten times as fast, where PyYAML was built with it
_OTHER = "a backup of the tracking store has it"


def _yaml(text: str) -> Any:
    """Plain values; aliases, with which a kilobyte becomes gigabytes, are not taken."""
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_SafeLoader)):
        raise ValueError("it repeats itself by aliases")
    return yaml.load(text, Loader=_SafeLoader)


class Evidence:
    """About one version; `place` is an empty folder for copies."""

    def __init__(self, client: Client, version: Version, place: Path) -> None:
        self.client, self.version, self._place = client, version, place
        self.objects = Objects()

    @property
    def name(self) -> str:
        """Of the model, which is that of its task."""
        return self.version.name

    @cached_property
    def task(self) -> Task:
        """What it predicts."""
        return resolve(self.name).task

    @cached_property
    def run(self) -> Run:
        """What the run says."""
        run = tracking.read(self.client, self.version.run_id)
        if run is None or run.deleted:
            raise Lost(f"run {self.version.run_id}: gone from the tracking store; {_OTHER}")
        return run

    @cached_property
    def kept(self) -> Path:
        """A copy of the run's files."""
        run = self.run
        try:
            return tracking.fetch(self.client, run.run_id, "", self._place / "run")
        except Exception as error:  # noqa: BLE001 - every kind of artifact store has errors of its own
            raise Lost(f"files of run {run.run_id}: cannot be fetched ({error}); {_OTHER}") from None

    @cached_property
    def raw(self) -> Path:
        """A copy of the stored model as it is, with what loading it has left there."""
        try:
            return model_files.copied(self.client, self.version, self._place / "raw", as_it_is=True)
        except HeartMLError as error:
            raise Lost(str(error)) from None

    @cached_property
    def signed(self) -> Signed:
        """What a trusted signature over the stored model vouches for.

        Raises:
            Lost: it is unsigned.
            Wrong: it is not what was signed, or the signature is of nobody who is trusted here.
        """
        what = f"{self.name} version {self.version.number}"
        if not (self.raw / signing.SIGNATURE).is_file():
            raise Lost(f"no {signing.SIGNATURE} beside the stored model: registered before models were signed, or "
                       f"somebody took it away. `heartml sign {self.name}/{self.version.number}` signs what is stored")
        try:
            return signing.verify(self.raw, keys.trusted(), what)
        except HeartMLError as error:
            raise Wrong(str(error)) from None

    def file(self, name: str) -> Path:
        """One file of the run."""
        path = self.kept / name
        if not path.exists():
            raise Lost(f"{name}: not among the files of run {self.version.run_id}; {_OTHER}")
        return path

    def values(self, name: str) -> dict[str, Any]:
        """One file of JSON or YAML."""
        text = self.file(name).read_text(encoding="utf-8")
        try:
            return dict(json.loads(text) if name.endswith(".json") else _yaml(text))
        except (ValueError, TypeError, yaml.YAMLError) as error:
            raise Wrong(f"{name}: damaged: {error}") from None

    @cached_property
    def facts(self) -> dict[str, Any]:
        """`lineage.json`."""
        return self.values("lineage.json")

    @cached_property
    def lock(self) -> dict[str, Any]:
        """`dvc.lock`."""
        return self.values("dvc.lock")

    @cached_property
    def stages(self) -> Mapping[str, Any]:
        """The entries of the lock behind this model."""
        found = capture.stages_behind(self.lock, paths.ARTIFACTS / self.name)
        if not found:
            raise Lost(f"dvc.lock: no stage in it makes artifacts/{self.name}")
        return found

    @cached_property
    def outputs(self) -> dict[str, str]:
        """Path -> MD5 of every output of these stages."""
        return {out["path"]: str(out.get("md5", "")) for entry in self.stages.values() for out in entry.get("outs", [])}

    @cached_property
    def data_md5(self) -> str:
        """The data version."""
        return str(self.values("data.dvc")["outs"][0]["md5"])

    @cached_property
    def commit(self) -> str:
        """The commit that the run names."""
        named = self.facts.get("code", {}).get("commit")
        if not named:
            raise Lost("lineage.json names no commit")
        return str(named)

    @cached_property
    def tree(self) -> Tree:
        """The code: the commit with the stored difference."""
        dirty = bool(self.facts.get("code", {}).get("dirty"))
        return Tree(self.commit, self.file("code.diff").read_bytes() if dirty else b"", self._place / "git")
