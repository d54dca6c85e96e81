"""Sign a model when it is registered, and verify it whenever it is loaded (OpenSSF model-signing, with a key file).

In: a folder with a model as MLflow stores it, code and weights. Out: two more files in the folder, a statement and a
signature over everything; or, when verifying, the statement.

The statement (`heartml.statement.json`) has the name, run, content key, and the SHA-256 or value of everything that the
run keeps (heartml/registry/sealing.py). One signature covers all of it. So an edited metric, a forged tag or an
exchanged file is found, even if they agree with each other. The gate's verdict comes later and is signed separately.

Threat model: somebody can write to the tracking store, the registry or the artifact store, and cannot read the private
key.
    Found: any changed, added or missing file of a model; a signature that was replaced together with its key (trusted
        keys come from outside the store, see `keys`); a model under another model's name, or with another run or
        content key than it was signed with.
    Not found here: a whole signed older model that was put back by moving an alias or an address (`heartml audit`
        compares alias and verdict with the signed gate); somebody who has the private key, or can write into this
        folder.
A signature says who registered a model. It does not say that the model is good.

A served model (`mlflow models serve`) runs the Python that is stored beside it before any check in that code can run.
So verify it first with other code (`heartml verify MODEL --to FOLDER`), and serve FOLDER.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import read_json, temporary_folder, write_json
from heartml.registry.signing import content, keys
from heartml.registry.signing.keys import Key

if TYPE_CHECKING:
    from model_signing.hashing import Config

STATEMENT, SIGNATURE = "heartml.statement.json", "heartml.signature.json"
_NOT_SIGNED = ("registered_model_meta", "__pycache__")   # MLflow and Python write these when they load a stored model
_HOW_TO_SIGN = "`heartml audit MODEL/VERSION` shows what is stored, then `heartml sign MODEL/VERSION` signs it"


class SignatureRefused(HeartMLError):  # noqa: N818 - reads as what happened
    """A model is not what was signed, or no trusted key signed it. It is not loaded."""


@dataclass(frozen=True)
class Signed:
    """What a valid signature confirms: the statement, and the fingerprint of the key."""

    statement: Mapping[str, Any]
    key: str


def sign(folder: Path, statement: Mapping[str, Any]) -> str:
    """Write `statement` into a folder, and a signature over everything in it; returns the key's fingerprint.

    Raises:
        ContentError: the folder holds something that could run code when it is read.
        KeysError: there is no key to sign with.
        SignatureRefused: the folder cannot be signed with this key.
    """
    content.check(folder)
    key = keys.own()
    write_json(folder / STATEMENT, statement)
    _sign(folder, folder / SIGNATURE, key)
    return key.fingerprint


def verify(folder: Path, trusted: Iterable[Key], what: str) -> Signed:
    """Check a folder against its signature.

    Args:
        trusted: public keys whose signatures count. They must not come from the place that the folder comes from.
        what: name of the model, for messages.

    Raises:
        SignatureRefused: the folder is unsigned, signed with another key, or not what was signed.
    """
    if not (folder / SIGNATURE).is_file():
        raise SignatureRefused(f"{what}: not signed (no {SIGNATURE}). It was registered before models were signed, or "
                               f"somebody took the signature away. {_HOW_TO_SIGN}")
    key = _verify(folder, folder / SIGNATURE, trusted, what)
    return Signed(dict(read_json(folder / STATEMENT)), key.fingerprint)


def sign_file(name: str, text: str) -> str:
    """Sign one small file, given its name and text; returns the signature as text, to be stored beside the file."""
    with temporary_folder() as folder:
        place, signature = folder / "signed", folder / SIGNATURE
        place.mkdir()
        (place / name).write_text(text, encoding="utf-8")
        _sign(place, signature, keys.own())
        return signature.read_text(encoding="utf-8")


def verify_file(file: Path, signature: Path, trusted: Iterable[Key], what: str) -> str:
    """Check a small file against the signature of `sign_file`; returns the key's fingerprint.

    Raises:
        SignatureRefused: as `verify`.
    """
    with temporary_folder() as folder:
        place = folder / "signed"
        place.mkdir()
        (place / file.name).write_bytes(file.read_bytes())
        return _verify(place, signature, trusted, what).fingerprint


def required() -> bool:
    """Whether models are signed and verified here. If that is switched off, a line on stderr says so."""
    off = keys.switched_off()
    if off:
        print(f"heartml: models are neither signed nor verified: {off}", file=sys.stderr, flush=True)
    return not off


def _sign(folder: Path, signature: Path, key: Key) -> None:
    from model_signing import signing

    assert key.private
    config: signing.Config = signing.Config()   # type: ignore[no-untyped-call]
    try:
        config.use_elliptic_key_signer(private_key=key.private)
        config.set_hashing_config(_hashing(folder)).sign(folder, signature)
    except (ValueError, TypeError, OSError) as error:
        raise SignatureRefused(f"{folder.name}: cannot be signed with {key.private}: {error}") from None


def _verify(folder: Path, signature: Path, trusted: Iterable[Key], what: str) -> Key:
    from cryptography.exceptions import InvalidSignature
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
    from model_signing import verifying

    key = _signer(signature, trusted, what)
    with temporary_folder() as place:
        public = place / "key.pub"
        public.write_text(key.public, encoding="utf-8")
        config: verifying.Config = verifying.Config()   # type: ignore[no-untyped-call]
        config.use_elliptic_key_verifier(public_key=public)
        try:
            config.set_hashing_config(_hashing(folder)).verify(folder, signature)
        except InvalidSignature:
            raise SignatureRefused(f"{what}: the signature is not that of key {key.short}: forged or damaged") from None
        except (ValueError, KeyError, TypeError, IndexError, OSError, ParseError) as error:
            raise SignatureRefused(f"{what}: not what was signed: {_short(str(error))}") from None
    return key


def _signer(signature: Path, trusted: Iterable[Key], what: str) -> Key:
    """The trusted key that the signature claims to be made with. Whether that is true is checked afterwards."""
    try:
        claimed = str(read_json(signature)["verificationMaterial"]["publicKey"]["hint"])
    except (OSError, ValueError, KeyError, TypeError):
        raise SignatureRefused(f"{what}: its signature cannot be read: damaged, or not one of ours") from None
    known = {key.fingerprint: key for key in trusted}
    if claimed not in known:
        here = ", ".join(f"{key.short} ({key.place})" for key in known.values()) or "none"
        raise SignatureRefused(f"{what}: signed with key {claimed[:keys.SHORT]}, which is not trusted here "
                               f"(trusted: {here}). Get the public key from whom you know it belongs to, "
                               f"and {keys.HOW_TO_TRUST}")
    return known[claimed]


def _hashing(folder: Path) -> "Config":
    """Hash every file with SHA-256, also hidden ones, and accept no links. Files that loading leaves are ignored."""
    from model_signing import hashing

    ignored = [path.relative_to(folder) for name in _NOT_SIGNED for path in folder.rglob(name)]
    config: Config = hashing.Config()   # type: ignore[no-untyped-call]
    return config.use_file_serialization(hashing_algorithm="sha256", allow_symlinks=False).set_ignored_paths(
        paths=[Path(SIGNATURE), *ignored], ignore_git_paths=False)


def _short(words: str, most: int = 400) -> str:
    flat = " ".join(words.removeprefix("Signature mismatch: ").split()).strip("[]")
    return flat if len(flat) <= most else f"{flat[:most]} ..."
