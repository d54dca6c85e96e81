"""The evidence of an audit, fetched once: the run and its files, the stored model, the lock, the code of the commit.

In: a registered version. Out: `Evidence`, whose properties read what they need at the first use.

From this working folder only git's objects, DVC's cache and remotes, and the trusted keys are used. Whatever is not
there raises `LinkMissing`. Then the link that needs it is missing, and the other links are still checked.
"""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from heartml.audit.git_tree import CommitTree
from heartml.audit.links import LinkBroken, LinkMissing
from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.core.tasks import Task, of_stored
from heartml.lineage import capture
from heartml.lineage.dvc_objects import Objects
from heartml.registry import model_files, signing, tracking
from heartml.registry.signing import Signed, keys
from heartml.registry.tracking import Client, Run
from heartml.registry.versions import Version

_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)      # ten times as fast, if PyYAML was built with it
_WAY_OUT = "a backup of the tracking store has it"
_SCORED = "evaluation/metrics.json"


def _yaml(text: str) -> Any:
    """Plain values. Aliases are refused, because with them a kilobyte of YAML can become gigabytes."""
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_SafeLoader)):
        raise ValueError("it repeats itself by aliases")
    return yaml.load(text, Loader=_SafeLoader)


class Evidence:
    """What is known about one version. `place` is an empty folder for copies."""

    def __init__(self, client: Client, version: Version, place: Path) -> None:
        self.client, self.version, self._place = client, version, place
        self.objects = Objects()

    @property
    def name(self) -> str:
        """Name of the model, which is its task's full name."""
        return self.version.name

    @cached_property
    def task(self) -> Task:
        """The task that the model was trained for, as its evaluation says or as its name means."""
        scored = self.values(_SCORED) if (self.run_files / _SCORED).is_file() else {}
        return of_stored(scored, self.name)

    @cached_property
    def run(self) -> Run:
        """The MLflow run with its params, metrics and tags."""
        run = tracking.read_run(self.client, self.version.run_id)
        if run is None or run.deleted:
            raise LinkMissing(f"run {self.version.run_id}: gone from the tracking store; {_WAY_OUT}")
        return run

    @cached_property
    def run_files(self) -> Path:
        """A copy of the run's files."""
        run = self.run
        try:
            return tracking.fetch(self.client, run.run_id, "", self._place / "run")
        except Exception as error:  # noqa: BLE001 - every kind of artifact store has errors of its own
            raise LinkMissing(f"files of run {run.run_id}: cannot be fetched ({error}); {_WAY_OUT}") from None

    @cached_property
    def stored_model(self) -> Path:
        """A copy of the stored model as it is, also with the files that loading it has left there."""
        try:
            return model_files.download_unverified(self.client, self.version, self._place / "raw",
                                                   with_bytecode=True)
        except HeartMLError as error:
            raise LinkMissing(str(error)) from None

    @cached_property
    def signed(self) -> Signed:
        """The statement that was signed with the stored model, verified.

        Raises:
            LinkMissing: the model is unsigned.
            LinkBroken: it is not what was signed, or the key is not trusted here.
        """
        what = f"{self.name} version {self.version.number}"
        if not (self.stored_model / signing.SIGNATURE).is_file():
            raise LinkMissing(f"no {signing.SIGNATURE} beside the stored model: registered before models were signed, "
                              "or somebody took it away. "
                              f"`heartml sign {self.name}/{self.version.number}` signs what is stored")
        try:
            return signing.verify(self.stored_model, keys.trusted(), what)
        except HeartMLError as error:
            raise LinkBroken(str(error)) from None

    def file(self, name: str) -> Path:
        """A copy of one file of the run."""
        path = self.run_files / name
        if not path.exists():
            raise LinkMissing(f"{name}: not among the files of run {self.version.run_id}; {_WAY_OUT}")
        return path

    def values(self, name: str) -> dict[str, Any]:
        """One JSON or YAML file of the run."""
        text = self.file(name).read_text(encoding="utf-8")
        try:
            return dict(json.loads(text) if name.endswith(".json") else _yaml(text))
        except (ValueError, TypeError, yaml.YAMLError) as error:
            raise LinkBroken(f"{name}: damaged: {error}") from None

    @cached_property
    def facts(self) -> dict[str, Any]:
        """`lineage.json`, the lineage that was captured when the version was registered."""
        return self.values("lineage.json")

    @cached_property
    def lock(self) -> dict[str, Any]:
        """`dvc.lock` as the run keeps it."""
        return self.values("dvc.lock")

    @cached_property
    def stages(self) -> Mapping[str, Any]:
        """The entries of `dvc.lock` for the stages behind this model."""
        found = capture.stages_behind(self.lock, paths.ARTIFACTS / self.name)
        if not found:
            raise LinkMissing(f"dvc.lock: no stage in it makes artifacts/{self.name}")
        return found

    @cached_property
    def outputs(self) -> dict[str, str]:
        """Path -> MD5 of every output of these stages."""
        return {out["path"]: str(out.get("md5", "")) for entry in self.stages.values() for out in entry.get("outs", [])}

    @cached_property
    def data_md5(self) -> str:
        """Hash of the data version."""
        return str(self.values("data.dvc")["outs"][0]["md5"])

    @cached_property
    def commit(self) -> str:
        """The commit that the run names."""
        named = self.facts.get("code", {}).get("commit")
        if not named:
            raise LinkMissing("lineage.json names no commit")
        return str(named)

    @cached_property
    def tree(self) -> CommitTree:
        """The code: the commit with the stored difference applied."""
        dirty = bool(self.facts.get("code", {}).get("dirty"))
        return CommitTree(self.commit, self.file("code.diff").read_bytes() if dirty else b"", self._place / "git")
