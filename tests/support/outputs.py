"""Outputs of a build on disk: their files, their provenance, and what `pem verify` says of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.command import pem

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
CARD, PROVENANCE = "README.md", "provenance.json"
DECLARED = 'adapter a = "a"\nadapter b = "b"\n'
TEXT = (
    f'import "lib/w.pem" (half)\nimport std.paper (merge)\n{DECLARED}save half * a + b to "out/x"\n'
)
"""A recipe with imports of both kinds."""
REFACTORED = TEXT.replace("half * a + b", "b + half * a")
"""Another that means the same."""


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def contents(directory: Path) -> dict[str, bytes]:
    """The files of a directory and all below it, by their path inside it."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def provenance(output: Path) -> Any:
    """The provenance of an output."""
    return json.loads((output / PROVENANCE).read_text())


def asked(statement: Any) -> Any:
    """What a provenance says was asked of the build."""
    return statement["predicate"]["buildDefinition"]["externalParameters"]


@dataclass(frozen=True)
class Verdict:
    """What became of a file."""

    what: str
    state: str
    details: tuple[str, ...]


@dataclass(frozen=True)
class Verified:
    """What `pem verify` says of an output; `rebuilt` is None where it was not built again."""

    holds: bool
    outputs: list[Verdict]
    materials: list[Verdict]
    rebuilt: list[Verdict] | None

    @property
    def differing(self) -> dict[str, tuple[str, ...]]:
        """What differs or is missing, with the details of each."""
        verdicts = [*self.outputs, *self.materials, *(self.rebuilt or [])]
        fine = ("same", "unchecked")
        return {x.what: (x.state, *x.details) for x in verdicts if x.state not in fine}


def verified(output: Path, *options: str | Path) -> Verified:
    """Hold an output to its provenance with `pem verify`, which is not to fail on the way."""
    done = pem("verify", output, "--format", "json", *options)
    told = json.loads(done.out)
    assert isinstance(told, dict), done.text
    assert (done.code, done.err) == (0 if told["holds"] else 1, "")
    rebuilt = None if told["rebuilt"] is None else _verdicts(told["rebuilt"])
    return Verified(
        told["holds"], _verdicts(told["outputs"]), _verdicts(told["materials"]), rebuilt
    )


def _verdicts(told: list[dict[str, Any]]) -> list[Verdict]:
    return [Verdict(file["what"], file["state"], tuple(file["details"])) for file in told]


def key_pair(private: Path) -> None:
    """Write a private key, and the public one beside it, as .pub."""
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    private.with_suffix(".pub").write_bytes(
        key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    )
