"""Check every link of the chain behind a registered version.

In: a version's name. Out: an `Audit` with one `AuditLink` for each check: whether it holds, is broken or is missing,
and what that rests on.

The signature is the strongest (heartml/registry/signing). What it covers cannot be changed without the key, not even by
changing every copy in the same way. Then come content hashes, which lead from the signed lock to each byte, and git,
whose commit is the hash of its content. Tags and aliases are only entries of the registry. They count if a signed file
agrees with them.

An audit cannot find a wrong value that was there before it was signed by somebody who has the key.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from heartml.audit import code, export, recompute, registry_claims, stored_bytes
from heartml.audit.evidence import Evidence
from heartml.audit.links import (
    BROKEN,
    CONTENT,
    GIT,
    HOLDS,
    MISSING,
    RECOMPUTED,
    REGISTRY,
    SIGNATURE,
    Audit,
    AuditLink,
    LinkBroken,
    LinkMissing,
)
from heartml.core import config
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import temporary_folder
from heartml.inference import exported
from heartml.registry import tracking, versions

if TYPE_CHECKING:
    from heartml.audit.reproduce import Reproduction


@dataclass(frozen=True)
class LinkCheck:
    """How one link is checked.

    Attributes:
        name: key, for programs.
        title: for people.
        function: returns what was found, in words; raises `LinkBroken` or `LinkMissing`. The first line of its
            docstring says what is expected, and is printed beside a link that does not hold.
        rests_on: what the result rests on.
    """

    name: str
    title: str
    function: Callable[[Evidence], str]
    rests_on: str


CHECKS = (
    LinkCheck("signature", "Signature of the model", registry_claims.signature, SIGNATURE),
    LinkCheck("record", "Run as signed", registry_claims.record, SIGNATURE),
    LinkCheck("no_pickle", "No pickle", registry_claims.no_pickle, f"{SIGNATURE}, and the bytes"),
    LinkCheck("commit", "Commit", code.commit, GIT),
    LinkCheck("difference", "Difference to the commit", code.difference, f"{SIGNATURE}, and {GIT}"),
    LinkCheck("stage_code", "Code of the stages", code.of_stages, f"{CONTENT}, and {GIT}"),
    LinkCheck("model_code", "Code beside the model", code.in_model, f"{SIGNATURE}, and {GIT}"),
    LinkCheck("pipeline", "dvc.yaml", code.pipeline, GIT),
    LinkCheck("parameters", "Parameters", code.parameters, f"{CONTENT}, and {GIT}"),
    LinkCheck("packages", "Packages", code.packages, f"{CONTENT}, and {GIT}"),
    LinkCheck("lock", "dvc.lock", stored_bytes.lock_hash, SIGNATURE),
    LinkCheck("stages", "Stages in dvc.lock", stored_bytes.noted_stages, SIGNATURE),
    LinkCheck("data_version", "Data version", stored_bytes.data_version, SIGNATURE),
    LinkCheck("data", "Files of the data version", stored_bytes.data_objects, CONTENT),
    LinkCheck("data_here", "Data in this folder", stored_bytes.data_here, CONTENT),
    LinkCheck("outputs", "Outputs of the stages", stored_bytes.stage_outputs, CONTENT),
    LinkCheck("model", "Registered model", stored_bytes.registered_model, CONTENT),
    LinkCheck("results", "Results that the run keeps", stored_bytes.stored_results, CONTENT),
    LinkCheck("validation", "Validation", registry_claims.validation, SIGNATURE),
    LinkCheck("groups", "No group on both sides", recompute.groups, RECOMPUTED),
    LinkCheck("metrics", "Metrics", recompute.metrics, RECOMPUTED),
    LinkCheck("decisions", "Decisions", recompute.decisions, RECOMPUTED),
    LinkCheck("gate", "Verdict of the gate", registry_claims.gate, SIGNATURE),
    LinkCheck("alias", "Alias champion", registry_claims.alias, f"{REGISTRY}, compared with the signed verdict"),
    LinkCheck("withdrawn", "Consent", registry_claims.withdrawn, REGISTRY),
)

SOURCES = LinkCheck("sources", "Validated sources", registry_claims.sources, REGISTRY)          # where there are any
WEIGHTS = LinkCheck("weights", "Pre-trained weights", stored_bytes.weights, CONTENT)     # where there are any


def run(model: str, checks: tuple[LinkCheck, ...] = CHECKS) -> Audit:
    """Check every link behind MODEL (its champion), MODEL@ALIAS, MODEL/VERSION, or the folder of an export.

    Raises:
        RegistryError: there is no such version.
    """
    return _run(model, checks, None)[0]


def run_all(
    model: str, *, reproduce: bool = False, tolerance: float | None = None
) -> tuple[Audit, "Reproduction | None"]:
    """As `run`, and with `reproduce` also run every stage again, as one more link.

    Args:
        tolerance: how far numbers may differ in another environment, relative to the larger of 1 and their size;
            `None`: `audit.tolerance` of params.yaml.

    Returns:
        The audit, and the reproduction; `None` if there was none.

    Raises:
        RegistryError: there is no such version.
    """
    if not reproduce:
        return run(model), None
    return _run(model, CHECKS, config.load().audit.tolerance if tolerance is None else tolerance)


def _run(model: str, checks: tuple[LinkCheck, ...], tolerance: float | None) -> tuple[Audit, "Reproduction | None"]:
    started, client = time.monotonic(), tracking.connect_to_existing()
    folder = Path(model) if exported.is_export(Path(model)) else None
    version = versions.get(client, export.version_of(folder) if folder else model)
    reproductions: list[Reproduction] = []

    def reproduced(evidence: Evidence) -> str:
        """Every stage, run again from commit and data, gives what was stored."""
        from heartml.audit import reproduce

        assert tolerance is not None
        reproductions.append(reproduce.run(evidence, tolerance))
        if reproductions[0].broken:
            raise LinkBroken(reproductions[0].words)
        return reproductions[0].words

    with temporary_folder() as place:
        evidence = Evidence(client, version, place)
        links = [_check(_of_export(folder), evidence)] if folder else []
        links += [_check(check, evidence) for check in (*checks, *_where_there_are_any(checks, evidence))]
        if tolerance is not None:
            links.append(_check(LinkCheck("reproduced", "Reproduction", reproduced, RECOMPUTED), evidence))
    audit = Audit(version, tuple(links), time.monotonic() - started)
    return audit, reproductions[0] if reproductions else None


def _of_export(folder: Path) -> LinkCheck:
    """One link more, before the others, for an exported model."""
    def exported_files(evidence: Evidence) -> str:
        return export.check(folder, evidence)

    exported_files.__doc__ = export.check.__doc__
    return LinkCheck("export", "Exported files", exported_files, f"{SIGNATURE}, and {CONTENT}")


def _where_there_are_any(checks: tuple[LinkCheck, ...], evidence: Evidence) -> list[LinkCheck]:
    """A link more for a version that was validated on other sources, and for one with weights not trained here."""
    if checks is not CHECKS:
        return []
    found = ((SOURCES, registry_claims.has_sources(evidence)), (WEIGHTS, stored_bytes.has_weights(evidence)))
    return [check for check, there in found if there]


def _check(check: LinkCheck, evidence: Evidence) -> AuditLink:
    state, found = HOLDS, ""
    try:
        found = check.function(evidence)
    except LinkMissing as error:
        state, found = MISSING, str(error)
    except (LinkBroken, HeartMLError) as error:
        state, found = BROKEN, str(error)
    except Exception as error:  # noqa: BLE001 - a file may hold anything, and the other links are still checked
        state, found = BROKEN, f"cannot be read: {type(error).__name__}: {error}"
    expected = " ".join((check.function.__doc__ or "").strip().splitlines()[0].split())
    return AuditLink(check.name, check.title, state, expected, " ".join(found.split()), check.rests_on)


