"""Recipe files: read whole, bounded, and told apart from what only looks like one."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from pemlang.diagnostics import Fault, listed, visible
from pemlang.disk import is_dir, open_plain
from pemlang.source import Source

SUFFIX = ".pem"
ON_THE_COMMAND_LINE = "-e"  # what a recipe is called that is in no file
MAX_BYTES = 256 << 10
DECLARE = 'to use the adapter that it belongs to, declare it in a recipe: adapter a = "folder"'
_TENSORS = re.compile(rb".{7}\0\{|PK\x03\x04|GGUF", re.DOTALL)
_CERTIFICATE = re.compile(rb"^[ \t]*-----BEGIN", re.MULTILINE)  # words before it are common


def read_source(path: Path, name: str | None = None) -> Source:
    """The text of a recipe file.

    Args:
        path: the file.
        name: what messages call it; its path when not given.

    Raises:
        Fault: PEM0100 missing or unreadable, PEM0101 too large, PEM0102 not UTF-8, PEM0103 a
            certificate, PEM0104 empty, PEM0115 of tensors.
    """
    name = str(path) if name is None else name
    return decoded(read_bytes(path, name), name, path.resolve().parent)


def leads_elsewhere(path: Path) -> bool:
    """Whether a path of a recipe is a link to a file of another kind, which messages would show
    lines of. In the hub's cache all files are links to blobs."""
    real = path.resolve()
    return real.suffix != SUFFIX and real.parent.name != "blobs"


def read_bytes(path: Path, name: str) -> bytes:
    """What is in a recipe file, MAX_BYTES and one more at the most.

    Raises:
        Fault: PEM0100 missing or unreadable.
    """
    shown = visible(name)
    try:
        if path.suffix == SUFFIX and leads_elsewhere(path):
            raise OSError(errno.EINVAL, f"it is a link to what is no {SUFFIX} file")
        with open_plain(path) as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        if is_dir(path):
            why = f"{shown} is a folder, not a recipe"
            raise Fault("PEM0100", why, _inside(path, name)) from None
        help = "check the path"
        if name == "-":
            help = "save it to a file: `pem check` and `pem fmt` alone read what is piped to them"
        raise Fault("PEM0100", f"cannot read {shown}: {error.strerror or error}", help) from None
    except (ValueError, RuntimeError):  # a NUL in the path, or links in a circle
        raise Fault("PEM0100", f"cannot read {shown}: not a path", "check the path") from None


def _inside(folder: Path, name: str) -> str:
    """What to give in place of a folder."""
    inside = sorted(path.name for path in folder.glob(f"*{SUFFIX}"))
    if not inside:
        return "give a recipe, a file called *.pem: `pem init` writes one from folders of adapters"
    return f"give a recipe in it: {listed(str(Path(name) / file) for file in inside)}"


def decoded(data: bytes, name: str, directory: Path) -> Source:
    """The text of a recipe, from what was read of it.

    Raises:
        Fault: as read_source, for what was read.
    """
    shown = visible(name)
    if _CERTIFICATE.search(data):
        raise Fault(
            "PEM0103",
            f"{shown} is a certificate or key, not a recipe: the two share the extension .pem",
            "give the path of a pemlang recipe; to read a certificate, use openssl",
        )
    if len(data) > MAX_BYTES:
        raise too_large(name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if _TENSORS.match(data):
            raise Fault("PEM0115", f"{shown} is a file of tensors, not a recipe", DECLARE) from None
        raise Fault(
            "PEM0102", f"{shown} is not UTF-8 text (byte {error.start})", "save it as UTF-8"
        ) from None
    if not text.strip():
        raise Fault(
            "PEM0104",
            f"{shown} is empty",
            'a recipe declares adapters and saves one: adapter a = "dir", then save a to "out/a"',
        )
    return Source(name, text.replace("\r\n", "\n"), directory)


def too_large(name: str) -> Fault:
    """PEM0101 of a recipe by its name."""
    return Fault(
        "PEM0101",
        f"{visible(name)} is larger than {MAX_BYTES >> 10} KiB, the most a recipe may have",
        "split it: import the parts from a recipe that saves",
    )


def is_certificate(path: Path) -> bool:
    """Whether a file is a certificate or key; one that cannot be read is not."""
    try:
        with open_plain(path) as file:
            return _CERTIFICATE.search(file.read(MAX_BYTES)) is not None
    except (OSError, ValueError):
        return False
