"""Signatures over a whole output, through the package model-signing (OpenSSF): `model.sig` beside
the tensors, which any tool that reads that format verifies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pemlang.artifact.place import PROVENANCE, SIGNATURE, is_one_file, own_file
from pemlang.artifact.provenance import read_provenance
from pemlang.diagnostics import Fault, visible
from pemlang.disk import beside

MAKES_A_KEY = "openssl ecparam -name prime256v1 -genkey -noout -out ~/merge.key"


def sign(directory: Path, key: Path) -> Path:
    """Sign all files of an output with an elliptic-curve private key in PEM form; of one file its
    provenance, which has the digests of the file.

    Raises:
        Fault: PEM0810 it is no output of pemlang, PEM0812 model-signing is not installed, PEM0813
            the key is none.
        OSError: the signature cannot be written.
    """
    read_provenance(directory)
    directory = directory.resolve()
    signed = _signed(directory)
    signing = _library("signing")
    target = own_file(directory, SIGNATURE)
    # Beside the directory: what is signed is all that is in it.
    new = beside(directory)
    try:
        try:
            # A plain Config starts out with a signer that asks a server, and is made with it.
            offline = type("Offline", (signing.Config,), {"use_sigstore_signer": lambda self: self})
            config = offline().use_elliptic_key_signer(private_key=key)
            config.set_hashing_config(_hashing(target)).sign(signed, new)
        except OSError:
            raise
        except Exception as error:  # the library raises those of what it stands on
            raise _bad_key(key, error) from None
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
    return target


def signed_by(directory: Path, key: Path) -> str | None:
    """Hold the signature of an output to a public key in PEM form: why it does not hold, or None.
    There is one.

    Raises:
        Fault: PEM0812 model-signing is not installed.
    """
    verifying = _library("verifying")
    signature = own_file(directory, SIGNATURE)
    if not _is_public(key):
        return (
            f"{visible(key)} is no public key in PEM form: give the one made from the private key"
        )
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
        config.set_hashing_config(_hashing(signature)).verify(_signed(directory), signature)
    except Exception as error:  # as above: whatever it is, the signature was not verified
        why = next((line for line in str(error).splitlines() if line.strip()), "")
        name = type(error).__name__
        told = f"{name}: {visible(why, 300)}" if why else name
        return f"another key made it, or what it signs has changed ({told})"
    return None


def _is_public(key: Path) -> bool:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        load_pem_public_key(key.read_bytes())
    except Exception:  # whatever is wrong with it
        return False
    return True


def _signed(target: Path) -> Path:
    """What a signature of an output is over."""
    return own_file(target, PROVENANCE) if is_one_file(target) else target


def _hashing(signature: Path) -> Any:
    hashing = _library("hashing")
    return hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)


def _library(part: str) -> Any:
    try:
        import model_signing.hashing
        import model_signing.signing
        import model_signing.verifying
    except ImportError:
        raise Fault(
            "PEM0812",
            "signatures need the package model-signing",
            'pip install "pemlang[sign]"',
        ) from None
    return getattr(model_signing, part)


def _bad_key(key: Path, error: Exception) -> Fault:
    why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return Fault(
        "PEM0813",
        f"cannot sign with {visible(key)}: {visible(why)}",
        f"give an elliptic-curve private key in PEM form: {MAKES_A_KEY}",
    )
