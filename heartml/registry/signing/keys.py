"""The key that signs here, and the keys that are trusted here. No key is taken from the place a model comes from.

Signing: `HEARTML_SIGNING_KEY` names a PEM file with an EC private key (P-256, P-384, P-521). Without it a pair is made
    once: `.heartml/keys/signing.pem`, which only its owner can read, and `signing.pub`.
Trusted: if `HEARTML_TRUSTED_KEYS` is set, the public keys in it (a PEM file, or a folder of `*.pub`) and no others.
    Otherwise the own key and those in `keys/*.pub` of this repository. Git brings these to every clone, and its
    history says who added each. Nothing is trusted on first use.
Off: `signing.required: false` in params.yaml, or HEARTML_SIGNING=off.
"""

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from heartml.core import config, paths
from heartml.core.system import untrusted
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import replacing
from heartml.core.system.locks import exclusive

SHORT = 16
HOW_TO_TRUST = (f"put it into {paths.TRUSTED_KEYS}/NAME.pub, or let HEARTML_TRUSTED_KEYS name it; the own one is "
                f"{paths.OWN_KEY.with_suffix('.pub')}")


class KeysError(HeartMLError):
    """A key cannot be used. The message names the file."""


@dataclass(frozen=True)
class Key:
    """A public key as canonical PEM, and where it was found. `private`: the file of the private key, if it is here."""

    public: str
    place: str
    private: Path | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical PEM, as a signature names its key."""
        return hashlib.sha256(self.public.encode()).hexdigest()

    @property
    def short(self) -> str:
        """The first 16 digits of the fingerprint, for people."""
        return self.fingerprint[:SHORT]


def switched_off() -> str:
    """Why models are not signed and verified here, in words; empty if they are."""
    if os.environ.get("HEARTML_SIGNING") == "off":
        return "HEARTML_SIGNING=off"
    return f"signing.required is false in {paths.PARAMS}" if _switched_off_in(paths.PARAMS) else ""


def _switched_off_in(params: Path) -> bool:
    """Whether params.yaml switches signing off. Only this section is read, so a file of another version works too."""
    if not params.is_file():
        return False
    try:
        section = untrusted.parse_yaml(untrusted.read_text(params), yaml.SafeLoader).get("signing")
        return section is not None and not config.SigningParams.model_validate(section).required
    except (untrusted.DocumentError, AttributeError, ValidationError):
        return False


def own() -> Key:
    """The key that signs here. It is made if there is none.

    Raises:
        KeysError: the file that HEARTML_SIGNING_KEY names is missing, or is no EC private key.
    """
    named = os.environ.get("HEARTML_SIGNING_KEY")
    if named:
        return _private(Path(named), "HEARTML_SIGNING_KEY")
    with exclusive(paths.LOCKS / "signing-key.lock"):
        if not paths.OWN_KEY.exists():
            _make(paths.OWN_KEY)
            made = _private(paths.OWN_KEY, "own key")
            print(f"heartml: made a key to sign models with, {paths.OWN_KEY} ({made.short}). Keep it secret, keep a "
                  f"copy. Others verify with its public half: cp {paths.OWN_KEY.with_suffix('.pub')} "
                  f"{paths.TRUSTED_KEYS}/NAME.pub, and commit that", file=sys.stderr, flush=True)
    return _private(paths.OWN_KEY, "own key")


def trusted() -> list[Key]:
    """The public keys whose signatures count here.

    Raises:
        KeysError: one of the files cannot be read.
    """
    named = os.environ.get("HEARTML_TRUSTED_KEYS")
    if named:
        return _public_keys(Path(named), "HEARTML_TRUSTED_KEYS")
    found = _public_keys(paths.TRUSTED_KEYS, str(paths.TRUSTED_KEYS)) if paths.TRUSTED_KEYS.is_dir() else []
    return [*found, *([own()] if os.environ.get("HEARTML_SIGNING_KEY") or paths.OWN_KEY.exists() else [])]


def _public_keys(place: Path, named_by: str) -> list[Key]:
    if not place.exists():
        raise KeysError(f"{named_by}: {place}: no such file or folder. {_where_keys_are()}")
    files = sorted(place.glob("*.pub")) if place.is_dir() else [place]
    if not files:
        raise KeysError(f"{named_by}: no *.pub in {place}")
    return [_public(file) for file in files]


def _where_keys_are() -> str:
    """For an error message: where public keys can be found."""
    there = [f"{folder}/" for folder in (paths.TRUSTED_KEYS, paths.OWN_KEY.parent) if any(folder.glob("*.pub"))]
    return (f"Public keys of this repository are in {' and '.join(there)}" if there else
            "`heartml retrain` makes a key, or ask whoever signed the model for theirs")


def _public(file: Path) -> Key:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return Key(_pem(load_pem_public_key(file.read_bytes())), str(file))
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeysError(f"{file}: no EC public key in PEM: {error}") from None


def _private(file: Path, place: str) -> Key:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return Key(_pem(load_pem_private_key(file.read_bytes(), None).public_key()), place, file)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeysError(f"{file}: no EC private key in PEM without a password: {error}") from None


def _pem(public: object) -> str:
    """The canonical PEM text of a public key."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if not isinstance(public, EllipticCurvePublicKey):
        raise TypeError("another kind of key")
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _make(file: Path) -> None:
    """Make a new P-256 pair. Only the owner can read the private key, from the first moment on."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = ec.generate_private_key(ec.SECP256R1())
    with replacing(file.with_suffix(".pub")) as public:
        public.write_text(_pem(made.public_key()), encoding="utf-8")
    with (replacing(file) as temporary,
          os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as private):
        private.write(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
