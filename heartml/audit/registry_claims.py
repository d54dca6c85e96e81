"""Is what the registry says what was signed? Signature, run, verdict, alias, withdrawals; nothing that runs code."""

from heartml.audit.evidence import Evidence
from heartml.audit.links import Lost, Wrong, agree, listed, short
from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.registry import champions, consent, sealing, signing
from heartml.registry.signing import content, keys
from heartml.registry.versions import CHAMPION, PROMOTED, REFUSED


def signature(evidence: Evidence) -> str:
    """A trusted key signed the stored model, as this model and from this run."""
    signed, version = evidence.signed, evidence.version
    for of, expected in (("model", version.name), ("run_id", version.run_id), ("key", version.tags.get("heartml.key"))):
        if signed.statement.get(of) != expected:
            raise Wrong(f"signed as {of} {signed.statement.get(of)}, registered as {expected}")
    files = sum(path.is_file() for path in evidence.raw.rglob("*"))
    return f"{files} files, by key {short(signed.key)}"


def record(evidence: Evidence) -> str:
    """Params, metrics, tags and files of the run are those that were signed."""
    said, run = evidence.signed.statement, evidence.run
    now = {"params": run.params, "metrics": run.metrics, "tags": sealing.signed_tags(run.tags),
           "files": {name: digest for name, digest in sealing.of_folder(evidence.kept).items()
                     if name not in sealing.LATER}}
    wrong, count = [], 0
    for kind, values in now.items():
        signed = said[kind]
        count += len(signed)
        wrong += [f"{kind.removesuffix('s')} {name}: signed {short(signed.get(name, 'not at all'))}, now "
                  f"{short(values.get(name, 'gone'))}"
                  for name in sorted({*values, *signed}) if values.get(name) != signed.get(name)]
    if wrong:
        raise Wrong(listed(wrong))
    return f"{count} params, metrics, tags and files of run {short(run.run_id, 8)} as signed"


def no_pickle(evidence: Evidence) -> str:
    """The stored model is text and numbers, and MLflow loads it as such."""
    found = content.problems(evidence.raw)
    if found:
        raise Wrong(listed(found))
    return "text and safetensors alone, loaded as such"


def gate(evidence: Evidence) -> str:
    """The signed verdict of the gate is what the tags say, criterion by criterion, and follows from its criteria."""
    version, tags = evidence.version, evidence.version.tags
    if not version.verdict:
        raise Lost("the gate has not spoken yet: the next `heartml retrain` judges it")
    told, signer = evidence.values(sealing.GATE), _signer(evidence)
    bound = {key: told.get(key) for key in sealing.of_version(version)}
    if bound != sealing.of_version(version):
        raise Wrong(f"{sealing.GATE} was signed for {bound.get('model')} version {bound.get('version')}, another one")
    wrong = []
    for criterion in told["criteria"]:
        word, tag = "passed" if criterion["passed"] else "failed", tags.get(f"heartml.gate.{criterion['name']}", "")
        if not tag.startswith(word) or criterion["words"][:100] not in tag:
            wrong.append(f"tag heartml.gate.{criterion['name']} says {short(tag or 'nothing', 60)}, the gate {word}")
    verdict = PROMOTED if all(criterion["passed"] for criterion in told["criteria"]) else REFUSED
    for what, says, signed in (
            ("heartml.verdict", version.verdict, verdict), ("promote", bool(told["promote"]), verdict == PROMOTED),
            ("heartml.reason", tags.get("heartml.reason", "")[:1000], str(told["reason"])[:1000]),
            ("heartml.compared_with", tags.get("heartml.compared_with"), told.get("champion") or champions.NONE)):
        wrong += [] if says == signed else [f"{what} says {short(says, 60)}, the signed gate {short(signed, 60)}"]
    if wrong:
        raise Wrong(listed(wrong))
    return f"{verdict}, {len(told['criteria'])} criteria, signed by key {short(signer)}"


def _signer(evidence: Evidence) -> str:
    """Fingerprint of the key that signed the verdict."""
    if not (evidence.kept / sealing.GATE_SIGNATURE).is_file():
        raise Lost(f"{sealing.GATE} is not signed (no {sealing.GATE_SIGNATURE} in the run)")
    try:
        return signing.verify_file(evidence.file(sealing.GATE), evidence.file(sealing.GATE_SIGNATURE), keys.trusted(),
                                   sealing.GATE)
    except HeartMLError as error:
        raise Wrong(str(error)) from None


def alias(evidence: Evidence) -> str:
    """Who is called champion is whom the gate promoted, or whom somebody by name decided for, last."""
    version = evidence.version
    entry = champions.last(champions.read(evidence.client, version.name))
    serving, here = entry.decision.version if entry else None, CHAMPION in version.aliases
    if serving and (serving == version.number) != here:
        raise Wrong(f"alias champion is {'here' if here else 'elsewhere'}, the journal of decisions says "
                    f"version {serving}")
    if not here:
        return "not called champion, and nobody decided that it is"
    if entry and entry.decision.kind in (champions.PERSON, champions.ROLLBACK):
        return f"champion: {entry.in_words()} (the registry's own words, nobody signs a person's decision)"
    if _promoted(evidence):
        return "champion, promoted by the gate"
    raise Wrong("called champion; the gate refused it, and the journal names nobody who decided otherwise")


def _promoted(evidence: Evidence) -> bool:
    """Whether the signed verdict, not a tag, says so."""
    _signer(evidence)
    return bool(evidence.values(sealing.GATE)["promote"])


def validation(evidence: Evidence) -> str:
    """The data passed validation when this was trained."""
    result = evidence.values("validation/validation.json")
    if not result.get("success"):
        raise Wrong(f"validation.json: the data did not pass ({listed(list(map(str, result.get('errors', []))))})")
    agree({"validation.json": "passed", "the run's tag": evidence.run.tags.get("heartml.validation")})
    return f"passed, {len(result.get('warnings', []))} warnings"


def withdrawn(evidence: Evidence) -> str:
    """Nobody whose data went into it has withdrawn consent since, by the registry and by the data of this folder."""
    import pandas as pd

    noted = consent.words(evidence.version)
    if noted:
        raise Wrong(f"consent was withdrawn: {noted}")
    if paths.WITHDRAWN.is_file():
        used = set(pd.read_parquet(evidence.file("folds.parquet"))["recording_id"])
        gone = pd.read_parquet(paths.WITHDRAWN)
        unmarked = sorted(set(gone.loc[gone["recording_id"].isin(used), "patient_id"]))
        if unmarked:
            raise Wrong(f"{paths.WITHDRAWN} names patients of this version, and no tag says so: {listed(unmarked)}")
    return "nobody has"
