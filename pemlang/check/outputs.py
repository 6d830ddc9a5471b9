"""What a recipe saves: each `save`, checked, and what it means."""

from __future__ import annotations

import hashlib
import json
import math
import os
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.adapter import Adapter
from pemlang.formats.holding import default_dtype, hold_dtype, hold_heads, hold_names
from pemlang.formats.readers import OutputReader
from pemlang.formats.record import Format, default_format, output_format
from pemlang.formats.transformers import is_shared
from pemlang.graph.dag import Graph
from pemlang.graph.leaves import Leaf, Model, Stored, adapters_of
from pemlang.graph.node import AdapterNode, ModelNode, told
from pemlang.graph.rebuild import Rebuilding
from pemlang.modules import Shapes
from pemlang.modules.sites import layer_of
from pemlang.ops.own import all_of, of_base
from pemlang.source import Span
from pemlang.tensorfiles.container import SUFFIXES, without_suffix
from pemlang.tensorfiles.dtypes import FLOATS
from pemlang.tensorfiles.safetensors import TensorEntry

MAX_PARTS, MAX_NAME = 100, 255
"""Of the path of an output: folders in each other, and the bytes of a name in UTF-8."""


@dataclass(frozen=True, eq=False)
class Output:
    """One `save`, checked.

    Attributes:
        node: what is saved, truncation included.
        path: the directory or the one file, as written.
        target: the same, resolved; inside the recipe's own folder.
        dtype: the file dtype, or None for the inputs' own.
        heads: the leaf whose heads are saved, when the recipe chose one.
        span: the statement.
        label: what is saved, as written.
        shard: of a model, the bytes of tensors in one of its files at most; as the model that it
            is made from when None.
        tokenizer: of a model, the one whose tokenizer it has, when the recipe chose one.
        format: of its files, when the recipe chose one.
        reader: the program that is to load it, when the recipe says so.
        heads_by: `none` or `mean`, when the recipe says so of its heads.
    """

    node: AdapterNode | ModelNode
    path: str
    target: Path
    dtype: str | None
    heads: Leaf | None
    span: Span
    label: str
    shard: int | None = None
    tokenizer: Model | None = None
    format: Format | None = None
    reader: OutputReader | None = None
    heads_by: str = ""

    @property
    def holds(self) -> str:
        """`adapter` or `model`: what is saved."""
        return "adapter" if isinstance(self.node, AdapterNode) else "model"

    def inputs(self, graph: Graph) -> list[Adapter]:
        """What it is made from; of zero, which is made from nothing, what has its sites."""
        of_sites = (leaf for leaf in graph.all_leaves() if leaf.shapes.keys() & self.node.shapes)
        return adapters_of(graph.parts(self.node) or list(of_sites))

    def format_of(self, graph: Graph) -> Format:
        """Of its files: what the recipe says, else that of its inputs."""
        return self.format or output_format(self.inputs(graph), self.holds)

    def rebuilt(self, new: Rebuilding) -> Output:
        """The same over other leaves."""
        heads = None if self.heads is None else new.node(self.heads)
        tokenizer = None if self.tokenizer is None else new.node(self.tokenizer)
        return replace(self, node=new.node(self.node), heads=heads, tokenizer=tokenizer)


def semantic_hash(output: Output, graph: Graph) -> str:
    """A digest of the meaning of an output: its normal form, the content of its leaves (their
    keys are digests here), its options, and its format where that is not the default one."""
    parts: list[object] = [
        "pemlang 1", output.node.key, output.node.type.base, output.dtype,
        None if output.heads is None else output.heads.key,
    ]  # fmt: skip
    record = output.format_of(graph)
    parts += [] if record is default_format(output.holds) else [record.name]
    parts += [] if output.shard is None else [("shard", output.shard)]
    parts += [] if output.tokenizer is None else [("tokenizer", output.tokenizer.key)]
    parts += [] if output.reader is None else [("reader", output.reader.name)]
    parts += [("heads", output.heads_by)] if output.heads_by else []
    return hashlib.sha256(json.dumps(told(tuple(parts))).encode()).hexdigest()


def same_place(target: Path) -> Path:
    """What is equal for directories that a file system may take for one: some tell no capitals
    from small letters, and some compose accents."""
    return Path(unicodedata.normalize("NFC", str(target)).casefold())


def output_path(path: str, directory: Path, root: Path) -> Path:
    """The directory a save writes; raises PEM0345 when it is not inside `root`."""
    parts = Path(path).parts
    bad = not parts or Path(path).is_absolute() or ".." in parts or not path.isprintable()
    target = directory / path
    if len(parts) > MAX_PARTS or any(len(os.fsencode(part)) > MAX_NAME for part in parts):
        raise Fault(
            "PEM0345",
            f"{visible(path, 80)!r} is too long for a path: it has {len(parts)} parts, the longest "
            f"of {max(len(os.fsencode(part)) for part in parts)} bytes",
            f"save to a path of at most {MAX_PARTS} parts of {MAX_NAME} bytes",
        )
    if not bad:
        try:
            target = target.parent.resolve() / target.name  # a link itself is never followed
            bad = target == root.resolve() or not target.is_relative_to(root.resolve())
        except (OSError, RuntimeError):
            bad = True
    if bad:
        raise Fault(
            "PEM0345",
            f"{visible(path, 80)!r} is no path inside the recipe's folder",
            'save to a relative path, "out/name"; `pem build --out DIR` writes elsewhere',
        )
    return target


def hold_files(output: Output, graph: Graph, heads: Sequence[Stored]) -> None:
    """Hold an adapter to what the files of its format can say, beside the heads of the first of
    some leaves; raises as Format.hold, hold_names,
    hold_heads and hold_dtype."""
    whole_modules = heads[0].adapter.whole_modules if heads else ()
    record = output.format_of(graph)
    record.hold(output.node.shapes, whole_modules)
    hold_names(record, output.inputs(graph), output.node.shapes)
    record.hold_inputs(adapters_of(graph.parts(output.node)))
    hold_heads(record, adapters_of(heads))
    hold_dtype(record, output.dtype or default_dtype(output.inputs(graph)))


def hold_suffix(record: Format, path: str, written: str) -> None:
    """Raise PEM0355 where a path names a file and a format makes a directory, or the other way
    round; `written` is the string of the recipe that says it."""
    suffix = next((suffix for suffix in SUFFIXES if path.endswith(suffix)), "")
    if suffix == record.suffix:
        return
    inner = without_suffix(written.removesuffix('"'))
    made = f"one {record.suffix} file" if record.one_file else "a folder"
    raise Fault(
        "PEM0355",
        f"{visible(path, 80)!r} is saved as {record.name}, which is {made}",
        f'{inner}{record.suffix}"',
    )


def hold_dtypes(
    graph: Graph, node: ModelNode, name: Callable[[Stored], str], mended: Callable[[str], str]
) -> None:
    """Hold the models that another is made from to store each of its tensors in one dtype; raises
    PEM0352.

    Args:
        graph, node: what is saved, with no dtype said.
        name: of a model.
        mended: the `save` with an option.
    """
    own = {site: node.entry(site) for site in node.shapes}
    for leaf in graph.parts(node):
        if not isinstance(leaf, Model):
            continue
        entries = leaf.adapter.header.entries
        both = [site for site in own if site in entries]
        other = [site for site in both if entries[site].dtype != own[site].dtype]
        if other:
            site = other[0]
            dtype, kept = entries[site].dtype, own[site].dtype
            raise Fault(
                "PEM0352",
                f"{visible(site)} is {dtype} in `{name(leaf)}` and {kept} in `{name(node.origin)}`",
                mended(f"dtype={kept.lower()}"),
                (f"{len(other)} tensors differ so",) if len(other) > 1 else (),
            )


def hold_whole(node: ModelNode) -> None:
    """Hold a model to have every tensor of the one whose config it has, but for layers that are
    left out and second names of tied weights; raises PEM0358."""
    origin = node.origin.adapter
    last = max((layer for x in node.shapes if (layer := layer_of(x)) is not None), default=-1)
    layers = {None, *range(last + 1)}
    lacking = [x for x in origin.layout.shapes if x not in node.shapes and layer_of(x) in layers]
    lost = [x for x in lacking if not is_shared(origin, x)]
    if lost:
        raise Fault(
            "PEM0358",
            f"what is saved has the config of {visible(origin.directory)} and lacks {len(lost)} of "
            f"its tensors: {listed(lost)}",
            "add to that model, b, what the other one changes: b + (m[like b] - b[like m[like b]])",
        )


def doubtful(leaves: Sequence[Stored], shapes: Shapes) -> Fault | None:
    """PEM0705 where configs differ in fan_in_fan_out and no shape tells whether the adapters belong
    to the same modules."""
    told_apart = any(
        not shape.b or math.prod(shape.a) != math.prod(shape.b) for shape in shapes.values()
    )
    if told_apart or len({leaf.adapter.fan_in_fan_out for leaf in leaves}) < 2:
        return None
    return Fault(
        "PEM0705",
        "the adapters' configs differ in fan_in_fan_out, and all their modules are square: nothing "
        "shows that they belong to the same ones",
        "see that they were trained on one model; PEFT takes the field from the module",
    )


# --- heads -----------------------------------------------------------------------------------


HEADS = ("none", "mean")
"""What a recipe may say of heads beside whose to keep."""


def heads_agree(graph: Graph, output: Output, name: Callable[[Stored], str]) -> Sequence[Stored]:
    """The leaves whose heads a save keeps: they must be equal, or it keeps their mean. From headers
    alone. A model has its own. Copies of the base's own weights are left out of files that hold no
    heads.

    Raises:
        Fault: PEM0346 when the adapters have different heads and none is chosen.
    """
    if isinstance(output.node, ModelNode):
        return (output.node.origin,)
    if output.heads is not None:
        return (output.heads,)
    if output.heads_by == "none":
        return ()
    own = _not_in_models(output.node)
    leaves = [leaf for leaf in graph.parts(output.node) if isinstance(leaf, Leaf) and leaf in own]
    copied = all(_heads(leaf).keys() <= leaf.adapter.layout.copies for leaf in leaves)
    if copied and not output.format_of(graph).keeps_heads:
        return ()
    if not output.heads_by:
        _hold_of_base(output, leaves, name)
    if output.heads_by == "mean":
        leaves = [leaf for leaf in leaves if _heads(leaf)]
        hold_floats(leaves, name)
    return _agreed(leaves, name)


def _not_in_models(node: AdapterNode) -> set[AdapterNode]:
    """The adapters that one is made from, but for those that were added to a model: their heads are
    that model's."""
    reached, pending = {node}, [node]
    while pending:
        new = {arg for arg in pending.pop().args if isinstance(arg, AdapterNode)} - reached
        reached |= new
        pending += new
    return reached


def _hold_of_base(output: Output, leaves: Sequence[Leaf], name: Callable[[Stored], str]) -> None:
    """Raise PEM0369 where something else is saved than an adapter that holds trained parameters of
    its base whole, and nothing is said of these."""
    assert isinstance(output.node, AdapterNode)
    holding = [leaf for leaf in leaves if leaf.adapter.layout.of_base]
    for leaf in sorted(holding, key=name):
        if len(holding) > 1 or not all_of(output.node, leaf):
            options = f"say what to keep: with heads={name(leaf)} or heads=none; or "
            raise of_base(leaf, visible(output.label, 60), options)


def hold_floats(leaves: Sequence[Leaf], name: Callable[[Stored], str]) -> None:
    """Raise PEM0346 for a head of whole numbers, which has no mean."""
    for leaf in leaves:
        for key, entry in _heads(leaf).items():
            if entry.dtype not in FLOATS:
                raise Fault(
                    "PEM0346",
                    f"{visible(key)} of `{name(leaf)}` is {entry.dtype}: whole numbers have no "
                    "mean",
                    f"say whose to keep: with heads={name(leaf)}",
                )


def _agreed(leaves: Sequence[Leaf], name: Callable[[Stored], str]) -> Sequence[Leaf]:
    """Leaves whose heads must be the same; none where no leaf has any."""
    if not any(_heads(leaf) for leaf in leaves):
        return ()
    first = _signature(leaves[0])
    for leaf in leaves[1:]:
        if _signature(leaf) != first:
            by_name = sorted(leaves, key=name)
            holder = next(leaf for leaf in by_name if _heads(leaf))
            raise Fault(
                "PEM0346",
                f"the adapters have different {_what_differs(leaves)}: a sum has no meaning there",
                f"say whose to keep: with heads={name(holder)}",
                tuple(f"{name(x)} has {listed(_heads(x)) or 'none'}" for x in by_name[:4]),
            )
    return leaves


def _heads(leaf: Leaf) -> Mapping[str, TensorEntry]:
    return leaf.adapter.layout.heads


def _what_differs(leaves: Sequence[Leaf]) -> str:
    copies = {key for leaf in leaves for key in leaf.adapter.layout.copies}
    if any(_signature(leaf, copies) != _signature(leaves[0], copies) for leaf in leaves):
        return "heads (modules_to_save)"
    return "copies of the base's own weights (base_layer)"


def _signature(leaf: Leaf, without: Collection[str] = ()) -> object:
    rows = leaf.adapter.layout.rows
    return {
        key: (entry.dtype, entry.shape, rows.get(key))
        for key, entry in _heads(leaf).items()
        if key not in without
    }
