"""Adapters and models read from where they are, in whichever format that is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from pemlang.diagnostics import Fault, listed, visible
from pemlang.disk import is_file, is_special
from pemlang.formats.adapter import MODEL_CONFIG, Adapter
from pemlang.formats.gguf_names import GGUF, MODULES, model_beside
from pemlang.formats.record import Format, default_format, formats_of
from pemlang.tensorfiles.container import SUFFIXES
from pemlang.tensorfiles.digests import seen_now
from pemlang.tensorfiles.safetensors import read_header

MAX_LOOKED_AT = 1000  # entries of a folder, among which adapters are looked for
_DIGITS = re.compile(r"([0-9]{1,18})")


def read_as(record: Format, place: Path, alone: bool = False) -> Adapter:
    """The adapter at a place in a format, with what the config of its model says that lies beside
    it, and what its files were before; raises Fault as Format.read.

    Args:
        record: the format.
        place: where it is.
        alone: whether what lies beside is no part of it, as in a cache, where it is there or not
            by what other programs have fetched.
    """
    folder = place.parent if record.one_file else place
    beside = [folder / MODEL_CONFIG] if record.naming in (MODULES, GGUF) and not alone else []
    seen = seen_now([*record.readable(place), *beside])
    adapter = record.read(place)
    return replace(adapter, seen=seen, model=model_beside(folder) if beside else {})


def read_adapter(place: Path, written: str | None = None) -> Adapter:
    """The adapter at a place, in whichever format it is; raises Fault as Format.read, and PEM0410
    for a file where an adapter is a directory.

    What is of no format is read as the default one, which says what it lacks; notes say what was
    seen of the others.

    Args:
        place: where it is.
        written: how the place is spelt, for help.
    """
    seen = []
    for record in formats_of("adapter"):
        detection = record.detect(place)
        if detection.fits:
            return read_as(record, place)
        if detection.saw:
            seen.append(f"as {record.name}: {detection.saw}")
    if is_file(place):
        raise _one_file(place, Path(written or place))
    if place.suffix in SUFFIXES and not os.path.lexists(place):
        raise Fault("PEM0410", f"there is no file {visible(place)}", "check the path")
    if is_special(place):
        why = f"cannot read {visible(place)}: it is neither a file nor a directory"
        raise Fault("PEM0411", why, "give the directory that PEFT's save_pretrained wrote")
    try:
        return read_as(default_format(), place)
    except Fault as fault:
        help = _adapters_below(place, written) if fault.code == "PEM0410" else None
        raise Fault(
            fault.code, fault.message, help or fault.help, (*fault.notes, *seen[1:])
        ) from None


def _adapters_below(place: Path, written: str | None) -> str | None:
    """What to give of the adapters in a folder that is none, or in the folders in it, of which
    some are looked at; None where there are none. An adapter may be one file."""
    names: list[str] = []
    folders, left = [""], MAX_LOOKED_AT
    for folder in folders:
        try:
            with os.scandir(place / folder) as entries:
                below = [
                    entry.name
                    for entry in islice(entries, left)
                    if entry.is_dir() or entry.name.endswith(SUFFIXES)
                ]
        except OSError:
            continue
        left -= len(below)
        paths = [f"{folder}/{name}" if folder else name for name in below]
        names += [x for x in paths if any(r.detect(place / x).fits for r in formats_of("adapter"))]
        folders += [] if folder else [path for path in paths if path not in names]
    if len(names) == 1:
        return f'"{visible((written or str(place)).rstrip("/"))}/{visible(names[0])}"'
    return f"give one of the adapters in it: {listed(in_order(names), 8)}" if names else None


def in_order(names: Iterable[str]) -> list[str]:
    """Names in order, the numbers in them by size: checkpoint-500 before checkpoint-1000."""
    return sorted(names, key=lambda x: [int(y) if y.isdecimal() else y for y in _DIGITS.split(x)])


def _one_file(place: Path, written: Path) -> Fault:
    """What to say of a file that no format reads by itself."""
    # A plan runs where no recipe is read.
    from pemlang.syntax.files import SUFFIX, is_certificate

    if any(record.detect(place.parent).fits for record in formats_of("adapter")):
        return Fault(
            "PEM0410",
            f"{visible(place)} is a file of an adapter: its folder is what to give",
            f'"{visible(written.parent)}"',
        )
    if place.suffix == SUFFIX and not is_certificate(place):
        return Fault(
            "PEM0410",
            f"{visible(place)} is a recipe, and no adapter",
            f"give the directory that it saves to; `pem plan {visible(place)}` says what it makes",
        )
    names = [record.name for record in formats_of("adapter") if record.one_file]
    what = _tensors_in(place) if place.suffix == SUFFIXES[0] else "a file"
    return Fault(
        "PEM0410",
        f"{visible(place)} is {what}, and no adapter",
        "give a directory that PEFT's save_pretrained wrote, or a LoRA in one file by the names of "
        + listed(names, len(names)),
    )


def _tensors_in(file: Path) -> str:
    """What the names in a file of tensors say that it is."""
    if any("lora_A" in name for name in read_header(file).entries):
        return "the tensors of a LoRA without the config that PEFT saves beside them"
    return "a file of tensors"
