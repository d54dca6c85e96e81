"""Does the whole chain behind a registered version still hold? Each link says holds, broken or missing, and on what.

The strongest anchor is the signature (heartml/registry/signing): what it covers cannot be changed without the key, not
even
where every copy is changed alike. Next are content hashes, which lead from the signed lock to each byte, and git, whose
commit is the hash of its content. Tags and aliases are the registry's own words: they count where a signed file says
the same.
What nobody can find here: a wrong that was there before it was signed, by somebody who holds the key.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heartml.audit import code, recompute, registry_claims, stored_bytes
from heartml.audit.evidence import Evidence
from heartml.audit.links import (
    AGAIN,
    BROKEN,
    CONTENT,
    GIT,
    HOLDS,
    MISSING,
    REGISTRY,
    SIGNATURE,
    Audit,
    AuditLink,
    Lost,
    Wrong,
)
from heartml.core import config
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import scratch
from heartml.registry import tracking, versions

if TYPE_CHECKING:
    from heartml.audit.reproduce import Reproduction


@dataclass(frozen=True)
class Check:
    """How one link is looked at; what is expected is the first line of the function's docstring."""

    name: str
    title: str
    look: Callable[[Evidence], str]
    rests_on: str


CHECKS = (
    Check("signature", "Signature of the model", registry_claims.signature, SIGNATURE),
    Check("record", "What the run says", registry_claims.record, SIGNATURE),
    Check("no_pickle", "Nothing runs code", registry_claims.no_pickle, f"{SIGNATURE}, and the bytes"),
    Check("commit", "Commit", code.commit, GIT),
    Check("difference", "Difference to the commit", code.difference, f"{SIGNATURE}, and {GIT}"),
    Check("stage_code", "Code of the stages", code.of_stages, f"{CONTENT}, and {GIT}"),
    Check("model_code", "Code beside the model", code.in_model, f"{SIGNATURE}, and {GIT}"),
    Check("pipeline", "dvc.yaml", code.pipeline, GIT),
    Check("parameters", "Parameters", code.parameters, f"{CONTENT}, and {GIT}"),
    Check("packages", "Packages", code.packages, f"{CONTENT}, and {GIT}"),
    Check("lock", "dvc.lock", stored_bytes.lock_hash, SIGNATURE),
    Check("stages", "Stages", stored_bytes.noted_stages, SIGNATURE),
    Check("data_version", "Data version", stored_bytes.data_version, SIGNATURE),
    Check("data", "Data, every file", stored_bytes.data_objects, CONTENT),
    Check("data_here", "Data in this folder", stored_bytes.data_here, CONTENT),
    Check("outputs", "Outputs of the stages", stored_bytes.stage_outputs, CONTENT),
    Check("model", "Registered model", stored_bytes.registered_model, CONTENT),
    Check("results", "Results that the run keeps", stored_bytes.stored_results, CONTENT),
    Check("validation", "Validation", registry_claims.validation, SIGNATURE),
    Check("groups", "Nobody on both sides", recompute.groups, AGAIN),
    Check("metrics", "Metrics", recompute.metrics, AGAIN),
    Check("decisions", "Decisions", recompute.decisions, AGAIN),
    Check("gate", "Verdict of the gate", registry_claims.gate, SIGNATURE),
    Check("alias", "Alias champion", registry_claims.alias, f"{REGISTRY}, held against the signed verdict"),
    Check("withdrawn", "Consent", registry_claims.withdrawn, REGISTRY),
)


def run(model: str, checks: tuple[Check, ...] = CHECKS) -> Audit:
    """Look at every link behind MODEL (its champion), MODEL@ALIAS or MODEL/VERSION.

    Raises:
        RegistryError: there is no such version.
    """
    return _run(model, checks, None)[0]


def run_all(
    model: str, *, reproduce: bool = False, tolerance: float | None = None
) -> tuple[Audit, "Reproduction | None"]:
    """The same, and where asked for it every stage made again as one more link.

    Args:
        tolerance: how far numbers may differ in another environment; `None`: `audit.tolerance` of params.yaml.
    """
    if not reproduce:
        return run(model), None
    return _run(model, CHECKS, config.load().audit.tolerance if tolerance is None else tolerance)


def _run(model: str, checks: tuple[Check, ...], tolerance: float | None) -> tuple[Audit, "Reproduction | None"]:
    started, client = time.monotonic(), tracking.connect()
    version = versions.get(client, model)
    again: list[Reproduction] = []

    def made_again(evidence: Evidence) -> str:
        """Every stage, run again from commit and data, gives what was stored."""
        from heartml.audit import reproduce

        assert tolerance is not None
        again.append(reproduce.run(evidence, tolerance))
        if again[0].broken:
            raise Wrong(again[0].words)
        return again[0].words

    with scratch() as place:
        evidence = Evidence(client, version, place)
        links = [_look(check, evidence) for check in checks]
        if tolerance is not None:
            links.append(_look(Check("reproduced", "Made again", made_again, AGAIN), evidence))
    return Audit(version, tuple(links), time.monotonic() - started), again[0] if again else None


def _look(check: Check, evidence: Evidence) -> AuditLink:
    state, found = HOLDS, ""
    try:
        found = check.look(evidence)
    except Lost as error:
        state, found = MISSING, str(error)
    except (Wrong, HeartMLError) as error:
        state, found = BROKEN, str(error)
    except Exception as error:  # noqa: BLE001 - whatever somebody put into a file, the other links are still looked at
        state, found = BROKEN, f"cannot be read: {type(error).__name__}: {error}"
    expected = " ".join((check.look.__doc__ or "").strip().splitlines()[0].split())
    return AuditLink(check.name, check.title, state, expected, " ".join(found.split()), check.rests_on)


