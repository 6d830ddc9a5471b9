"""Where the modules of an adapter lie in the files of a model.

An adapter names modules as the model had them that it was trained on; a checkpoint may have other
names for them. All of an adapter goes by one of the ways that namings.py lists.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain

from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.namings import NAMINGS, Naming
from pemlang.formats.peft_names import PREFIX, ROWS


def tensor_of_head(key: str) -> str:
    """The tensor of the base that a head of an adapter of PEFT stands for."""
    return key.removeprefix(PREFIX).replace(".base_layer.", ".").replace(ROWS, ".weight")


def located(tensors: Collection[str], wanted: Sequence[str]) -> dict[str, str]:
    """Where some tensors of a base are in a model.

    Args:
        tensors: those of the model.
        wanted: as the adapter's base names them; at least one.

    Raises:
        Fault: PEM0338 there is none, or more than one, for some of them.
    """
    wanted = least = list(dict.fromkeys(wanted))
    tries: Iterator[list[list[str | None]]] = chain(
        ([[naming.of(tensor) for tensor in wanted]] for naming in NAMINGS),
        (list(_other_prefixes(tensors, wanted, naming)) for naming in NAMINGS),
    )
    for ways in tries:
        lost = [_lost(tensors, wanted, names) for names in ways]
        whole = [names for names, missing in zip(ways, lost, strict=True) if not missing]
        if len(whole) > 1:
            first, second = (visible(names[0] or "") for names in whole[:2])
            raise Fault(
                "PEM0338",
                f"{visible(wanted[0])} may be {first} or {second}",
                "give the model that the adapter was trained on, or save it with its class",
            )
        if whole:
            return {tensor: name for tensor, name in zip(wanted, whole[0], strict=True) if name}
        least = min([least, *lost], key=len)
    raise Fault(
        "PEM0338",
        f"the model has no place for {len(least)} of the {len(wanted)} tensors that the adapter "
        f"changes: {listed(least)}",
        "give the model that the adapter was trained on, saved by the class that it had then; or "
        'leave these modules out, as in x["*.q_proj", "*.v_proj"]',
    )


def _lost(
    tensors: Collection[str], wanted: Sequence[str], names: Sequence[str | None]
) -> list[str]:
    """Those of some tensors whose names are none of a model's; all where two have one name."""
    found = [name for name in names if name in tensors]
    if len(set(found)) < len(found):
        return list(wanted)
    return [tensor for tensor, name in zip(wanted, names, strict=True) if name not in tensors]


def _other_prefixes(
    tensors: Collection[str], wanted: Sequence[str], naming: Naming
) -> Iterator[list[str | None]]:
    """What some tensors may be called with one prefix less, or more; None of what lacks it."""
    deepest = max(wanted, key=lambda tensor: tensor.count("."))
    parts = deepest.split(".")
    for count in range(1, len(parts) - 1):
        prefix = ".".join(parts[:count]) + "."
        yield [
            naming.of(tensor.removeprefix(prefix)) if tensor.startswith(prefix) else None
            for tensor in wanted
        ]
    name = naming.of(deepest)
    for prefix in [x.removesuffix(name) for x in tensors if x.endswith(f".{name}")]:
        yield [prefix + naming.of(tensor) for tensor in wanted]
