"""What an output is made from, held to what the files of its format can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.adapter import Adapter
from pemlang.formats.gguf_names import GGUF, MODULES, RenamedSite, renamed_sites
from pemlang.formats.image_names import can_rename, names_in
from pemlang.formats.record import Format, default_format, names_format
from pemlang.modules import PARAMETRISATIONS, Shapes
from pemlang.modules.dense import DENSE
from pemlang.modules.lora import LORA
from pemlang.tensorfiles.dtypes import work_dtype


def hold_names(record: Format, inputs: Sequence[Adapter], sites: Shapes) -> None:
    """Raise PEM0354 where the adapters that an output of a format is made from name modules in
    two ways, or its files have no names for some sites; `sites` are those of the output."""
    by_naming = {names_format(x).naming: names_format(x) for x in inputs}
    if by_naming.keys() <= {record.naming}:
        return
    if by_naming.keys() | {record.naming} == {MODULES, GGUF} and len(by_naming) == 1:
        renamed_sites(sites, inputs, record.naming)
        return
    if len(by_naming) == 1 and can_rename(next(iter(by_naming)), record.naming):
        names_in(sites, next(iter(by_naming)), record.naming)
        return
    names = [
        (other if other.holds == "adapter" else default_format()).name
        for other in by_naming.values()
    ]
    if len(names) > 1:
        raise Fault(
            "PEM0354",
            f"it is made from files of {listed(sorted(names))}, which name one module in two ways",
            _NAMES_OF_ONE
            if all(x.format.starts for x in inputs)
            else "combine adapters whose files are of one format",
        )
    raise Fault(
        "PEM0354",
        f"it has the names that files of {names[0]} give to modules, and files of {record.name} "
        "have others for them",
        f"save it with format={names[0]}, which it has where no format is said",
        (_BESIDE.format(record.name),) if record.starts and inputs[0].format.starts else (),
    )


_NAMES_OF_ONE = (
    'give them the names of one, y, where the other, x, is declared: adapter x = "…" with names=y'
)
_BESIDE = (
    "beside a file of {} with the same modules, y, they have the names of those: "
    'adapter x = "…" with names=y, or `pem convert` with --like'
)


def names_of_sites(
    record: Format, inputs: Sequence[Adapter], sites: Shapes
) -> Mapping[str, RenamedSite]:
    """What files of a format call the sites of an output, of which hold_names found nothing wrong;
    as they are called, where the format itself does not rename them."""
    if any({x.format.naming, record.naming} == {MODULES, GGUF} for x in inputs):
        return renamed_sites(sites, inputs, record.naming)
    return {site: RenamedSite(site) for site in sites}


def default_dtype(adapters: Sequence[Adapter]) -> str:
    """The inputs' dtype where they share one; else the widest, at least F32.

    A zero made from nothing is F32.
    """
    dtypes = frozenset[str]().union(*(adapter.layout.dtypes for adapter in adapters))
    return next(iter(dtypes)) if len(dtypes) == 1 else work_dtype(dtypes)


def hold_plain_loras(shapes: Shapes, file: str) -> None:
    """Raise PEM0421 for a site that is no LoRA of a linear layer or an embedding; `file` is what
    holds nothing else."""
    for site, shape in shapes.items():
        if shape.kind == LORA.name and shape.layer in ("linear", "embedding"):
            continue
        layer = f" of {shape.layer}" if shape.kind == LORA.name else ""
        help = "save it with format=peft, or add it to a model and save that, b + x"
        if shape.kind == DENSE.name and len(shape.a) > 1:
            help = "make a LoRA of it: compress(x, rank=16)"
        raise Fault(
            "PEM0421",
            f"{visible(site)} is {PARAMETRISATIONS[shape.kind].title}{layer}, and {file} holds "
            "LoRAs of linear layers and of embeddings alone",
            help,
        )


def hold_dtype(record: Format, dtype: str) -> None:
    """Raise PEM0419 for a dtype that files of a format do not have."""
    if dtype not in record.dtypes:
        raise Fault(
            "PEM0419",
            f"files of {record.name} hold no {dtype.lower()}",
            f"save it with dtype={record.dtypes[0].lower()}",
        )


def hold_heads(record: Format, heads: Sequence[Adapter]) -> None:
    """Raise PEM0421 where files of a format cannot hold the heads of the first of some adapters."""
    whole = list(heads[0].layout.heads) if heads else []
    if whole and not record.keeps_heads:
        raise Fault(
            "PEM0421",
            f"files of {record.name} hold no weights that are saved whole, such as {listed(whole)}",
            "leave them out, with heads=none",
        )
