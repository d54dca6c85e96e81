"""Checks of the registry against what was signed: signature, run, verdict, alias, validation, withdrawn consent.

In: the evidence about one version. Out, for each check: what was found, in words. A check raises `LinkBroken` or
`LinkMissing`; the first line of its docstring says what is expected.
"""

from heartml.audit.evidence import Evidence
from heartml.audit.links import LinkBroken, LinkMissing, listed, require_same, short
from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.core.system.hashing import sha256_file
from heartml.inference import validated_sources
from heartml.registry import champions, consent, sealing, signing
from heartml.registry.signing import content, keys
from heartml.registry.versions import CHAMPION, PROMOTED, REFUSED


def signature(evidence: Evidence) -> str:
    """A trusted key signed the stored model, as this model and from this run."""
    signed, version = evidence.signed, evidence.version
    pairs = (("model", version.name), ("run_id", version.run_id), ("key", version.tags.get("heartml.key")))
    for key, expected in pairs:
        if signed.statement.get(key) != expected:
            raise LinkBroken(f"signed as {key} {signed.statement.get(key)}, registered as {expected}")
    files = sum(path.is_file() for path in evidence.stored_model.rglob("*"))
    return f"{files} files, by key {short(signed.key)}"


def record(evidence: Evidence) -> str:
    """Params, metrics, tags and files of the run are those that were signed."""
    statement, run = evidence.signed.statement, evidence.run
    now = {"params": run.params, "metrics": run.metrics, "tags": sealing.signed_tags(run.tags),
           "files": {name: digest for name, digest in sealing.folder_hashes(evidence.run_files).items()
                     if name not in sealing.LATER}}
    wrong, count = [], 0
    for kind, values in now.items():
        signed = statement[kind]
        count += len(signed)
        wrong += [f"{kind.removesuffix('s')} {name}: signed {short(signed.get(name, 'not at all'))}, now "
                  f"{short(values.get(name, 'gone'))}"
                  for name in sorted({*values, *signed}) if values.get(name) != signed.get(name)]
    if wrong:
        raise LinkBroken(listed(wrong))
    return f"{count} params, metrics, tags and files of run {short(run.run_id, 8)} as signed"


def no_pickle(evidence: Evidence) -> str:
    """The stored model holds only text and safetensors, and MLflow loads it as such."""
    found = content.problems(evidence.stored_model)
    if found:
        raise LinkBroken(listed(found))
    return "only text and safetensors, loaded as such"


def gate(evidence: Evidence) -> str:
    """The tags have the gate's signed verdict, criterion by criterion, and the verdict follows from its criteria."""
    version, tags = evidence.version, evidence.version.tags
    if not version.verdict:
        raise LinkMissing("the gate has not judged it yet: the next `heartml retrain` does")
    stored, signer = evidence.values(sealing.GATE), _signer(evidence)
    identity = {key: stored.get(key) for key in sealing.version_identity(version)}
    if identity != sealing.version_identity(version):
        raise LinkBroken(f"{sealing.GATE} was signed for another version, {identity.get('model')} version "
                         f"{identity.get('version')}")
    wrong, look = [], stored.get("look")                         # versions judged before looks were counted have none
    for criterion in stored["criteria"]:
        word, tag = "passed" if criterion["passed"] else "failed", tags.get(f"heartml.gate.{criterion['name']}", "")
        if not tag.startswith(word) or criterion["words"][:100] not in tag:
            wrong.append(f"tag heartml.gate.{criterion['name']} says {short(tag or 'nothing', 60)}, the gate {word}")
    verdict = PROMOTED if all(criterion["passed"] for criterion in stored["criteria"]) else REFUSED
    for what, says, signed in (
            ("heartml.verdict", version.verdict, verdict), ("promote", bool(stored["promote"]), verdict == PROMOTED),
            ("heartml.reason", tags.get("heartml.reason", "")[:1000], str(stored["reason"])[:1000]),
            ("heartml.compared_with", tags.get("heartml.compared_with"), stored.get("champion") or champions.NONE),
            *([("heartml.look", tags.get("heartml.look"), str(look["number"]))] if look else [])):
        wrong += [] if says == signed else [f"{what} says {short(says, 60)}, the signed gate {short(signed, 60)}"]
    if wrong:
        raise LinkBroken(listed(wrong))
    return f"{verdict}, {len(stored['criteria'])} criteria, signed by key {short(signer)}"


def _signer(evidence: Evidence) -> str:
    """Fingerprint of the key that signed the verdict."""
    if not (evidence.run_files / sealing.GATE_SIGNATURE).is_file():
        raise LinkMissing(f"{sealing.GATE} is not signed (no {sealing.GATE_SIGNATURE} in the run)")
    try:
        return signing.verify_file(evidence.file(sealing.GATE), evidence.file(sealing.GATE_SIGNATURE), keys.trusted(),
                                   sealing.GATE)
    except HeartMLError as error:
        raise LinkBroken(str(error)) from None


def alias(evidence: Evidence) -> str:
    """The alias champion is on the version that the gate or a named person chose last."""
    version = evidence.version
    entries = champions.read(evidence.client, version.name)
    entry, retired = champions.last(entries), champions.retired(entries, version.number)
    serving, here = entry.decision.version if entry else None, CHAMPION in version.aliases
    if serving and (serving == version.number) != here:
        raise LinkBroken(f"alias champion is {'here' if here else 'elsewhere'}, the journal of decisions says "
                         f"{'that no version serves' if serving == champions.NONE else f'version {serving}'}")
    if retired and not here:
        return f"not champion: {retired.in_words()} (the registry's entry; a person's decision is not signed)"
    if not here:
        return "not champion, and no decision says that it is"
    if entry and entry.decision.kind in champions.BY_A_PERSON:
        return f"champion: {entry.in_words()} (the registry's entry; a person's decision is not signed)"
    if _promoted(evidence):
        return "champion, promoted by the gate"
    raise LinkBroken("champion, but the gate refused it, and the journal has no person's decision for it")


def _promoted(evidence: Evidence) -> bool:
    """Whether the gate promoted it, by the signed verdict and not by a tag."""
    _signer(evidence)
    return bool(evidence.values(sealing.GATE)["promote"])


def validation(evidence: Evidence) -> str:
    """The data passed validation when this version was trained."""
    result = evidence.values("validation/validation.json")
    if not result.get("success"):
        raise LinkBroken(f"validation.json: the data did not pass ({listed(list(map(str, result.get('errors', []))))})")
    require_same({"validation.json": "passed", "the run's tag": evidence.run.tags.get("heartml.validation")})
    return f"passed, {len(result.get('warnings', []))} warnings"


def has_sources(evidence: Evidence) -> bool:
    """Whether the version was validated on another source (`heartml validate-source`)."""
    return any(tag.startswith(validated_sources.TAG) for tag in evidence.version.tags)


def sources(evidence: Evidence) -> str:
    """The evidence of each source that this version was validated on is the file that the registry noted."""
    noted = {tag.removeprefix(validated_sources.TAG): digest for tag, digest in evidence.version.tags.items()
             if tag.startswith(validated_sources.TAG)}
    here = {name: validated_sources.FOLDER / f"{name}.json" for name in sorted(noted)}
    if missing := [str(path) for path in here.values() if not path.is_file()]:
        raise LinkMissing(f"not here: {listed(missing)}. Bring it back from git")
    if other := [str(path) for name, path in here.items() if sha256_file(path) != noted[name]]:
        raise LinkBroken(f"changed since the validation: {listed(other)}. `heartml validate-source` makes it anew")
    return f"as noted: {listed(list(map(str, here.values())))}"


def withdrawn(evidence: Evidence) -> str:
    """No patient of this version has withdrawn consent since, by the registry and by the data of this folder."""
    import pandas as pd

    noted = consent.describe(evidence.version)
    if noted:
        raise LinkBroken(f"consent was withdrawn: {noted}")
    if paths.WITHDRAWN.is_file():
        used = set(pd.read_parquet(evidence.file("folds.parquet"))["recording_id"])
        gone = pd.read_parquet(paths.WITHDRAWN)
        unmarked = sorted(set(gone.loc[gone["recording_id"].isin(used), "patient_id"]))
        if unmarked:
            raise LinkBroken(f"{paths.WITHDRAWN} names patients of this version, and no tag does: {listed(unmarked)}")
    return "no patient has withdrawn consent"
