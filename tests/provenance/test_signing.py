"""Signatures over an output: they hold for their key and for the files that were signed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from support import build, edit, pem
from support.outputs import (
    CARD,
    CONFIG,
    PROVENANCE,
    REFACTORED,
    TEXT,
    WEIGHTS,
    asked,
    flip,
    key_pair,
)

ROOT = Path(__file__).parents[2]
SIGNATURE = "model.sig"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with two pairs of keys."""
    pytest.importorskip("model_signing")
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("one", "two"):
        key_pair(folder / name)
    return folder


def signed(output: Path, keys: Path) -> None:
    """Sign an output with the first key."""
    assert pem("sign", output, "--key", keys / "one").code == 0


def holds(output: Path, key: Path) -> tuple[bool, str]:
    """Whether a signature holds for a key, and what is said of it."""
    done = pem("verify", output, "--key", key)
    told = done.out.partition("model.sig")[2]
    assert (done.code == 0) == ("not" not in done.out.splitlines()[-1]), done.out
    return done.code == 0, told


def test_a_signature_holds_for_its_key_alone(output: Path, keys: Path) -> None:
    assert "is not there" in holds(output, keys / "one.pub")[1]
    signed(output, keys)
    assert sorted(path.name for path in output.parent.iterdir()) == ["x"]
    assert holds(output, keys / "one.pub")[0]
    held, told = holds(output, keys / "two.pub")
    assert (held, "another key made it" in told) == (False, True)
    held, told = holds(output, keys / "one")  # a private key
    assert (held, "is no public key" in told) == (False, True)
    result = json.loads(pem("verify", output, "--key", keys / "two.pub", "--format", "json").out)
    states = {file["what"]: file["state"] for file in result["outputs"]}
    assert (result["holds"], states[SIGNATURE]) == (False, "differs")


def test_without_a_key_it_is_said_what_to_do(output: Path, keys: Path) -> None:
    done = pem("sign", output)
    assert done.code == 2
    [made] = re.findall(r"Give a private key: --key FILE\. One is made by: (openssl .*)", done.err)
    words = made.replace("~/merge.key", str(keys / "new")).split()
    subprocess.run(words, check=True, capture_output=True)
    assert "`pem sign` writes it" in holds(output, keys / "one.pub")[1]
    assert pem("sign", output, "--key", keys / "new").code == 0
    assert "--key holds it to a public key" in pem("verify", output).out
    steps = subprocess.check_output(["make", "-n", "release"], cwd=ROOT, text=True)
    assert "make release KEY=FILE signs it" in steps


def test_the_package_itself_verifies_it(output: Path, keys: Path) -> None:
    from model_signing import hashing, verifying

    signed(output, keys)
    ignored = hashing.Config().set_ignored_paths(paths=[output / SIGNATURE])
    config = verifying.Config().use_elliptic_key_verifier(public_key=keys / "one.pub")
    config.set_hashing_config(ignored).verify(output, output / SIGNATURE)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, CARD, PROVENANCE])
def test_a_file_changed_after_signing_is_told(output: Path, keys: Path, name: str) -> None:
    signed(output, keys)
    if name == PROVENANCE:
        edit(output, lambda statement: asked(statement).update(expression="b"))
    else:
        flip(output / name, -2)
    held, told = holds(output, keys / "one.pub")
    assert (held, "has changed" in told) == (False, True)


def test_a_file_added_after_signing_is_told(output: Path, keys: Path) -> None:
    signed(output, keys)
    (output / ".gitattributes").write_text("x")
    assert not holds(output, keys / "one.pub")[0]


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 99_999, b"{}", b"\xff"])
def test_a_damaged_signature_is_told(output: Path, keys: Path, data: bytes) -> None:
    (output / SIGNATURE).write_bytes(data)
    assert not holds(output, keys / "one.pub")[0]


def test_a_signed_output_stays_signed_while_it_stays(
    folder: Path, output: Path, keys: Path
) -> None:
    signed(output, keys)
    build(folder, TEXT)
    assert holds(output, keys / "one.pub")[0]
    build(folder, REFACTORED)  # its provenance is another: what was signed is not there any more
    assert not (output / SIGNATURE).exists()


def test_signing_inside_the_directory(
    output: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(output)
    signed(Path(), keys)
    assert holds(Path(), keys / "one.pub")[0]
    assert [path.name for path in output.parent.iterdir()] == ["x"]


def test_a_key_that_is_none_is_told(output: Path, keys: Path) -> None:
    for key in (output / CONFIG, keys / "one.pub"):
        done = pem("sign", output, "--key", key)
        assert (done.code, "error[PEM0813]" in done.err) == (1, True)
    assert not (output / SIGNATURE).exists()
    assert [path.name for path in output.parent.iterdir()] == ["x"]
    done = pem("sign", output.parent.parent / "a", "--key", keys / "one")
    assert (done.code, "error[PEM0810]" in done.err) == (1, True)
