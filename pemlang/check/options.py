"""What `save … with …` may say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pemlang.check.annotations import dtype_name
from pemlang.diagnostics import Fault, listed, nearest, visible
from pemlang.formats.peft import Adapter
from pemlang.graph.node import AdapterType, Graph, ModelType, Node, plain
from pemlang.graph.normal import adapter_type
from pemlang.source import Span
from pemlang.syntax import tree as t

OPTIONS = ("rank", "energy", "dtype", "heads")


@dataclass(frozen=True)
class Output:
    """One `save`, checked.

    Attributes:
        node: what is saved, truncation included.
        path: the directory, as written.
        target: the directory, resolved; inside the recipe's own.
        dtype: the file dtype, or None for the inputs' own.
        heads: the leaf whose heads are saved, when the recipe chose one.
        span: the statement.
        label: what is saved, as written.
    """

    node: Node
    path: str
    target: Path
    dtype: str | None
    heads: Node | None
    span: Span
    label: str


def semantic_hash(output: Output) -> str:
    """A digest of the meaning of an output: its normal form, the content of its leaves (their
    keys are digests here), its options."""
    type_ = output.node.type
    assert isinstance(type_, AdapterType | ModelType)
    said = [
        "pemlang 1", output.node.key, type_.base, output.dtype,
        None if output.heads is None else output.heads.key,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(plain(tuple(said))).encode()).hexdigest()


def unknown_option(name: str) -> Fault:
    """What to say of an option that `save` does not have."""
    close = nearest(name, OPTIONS)
    return Fault(
        "PEM0340",
        f"`save` has no option `{visible(name, 40)}`",
        f"did you mean `{close}`?" if close else f"options are {', '.join(OPTIONS)}",
    )


def option_dtype(tree: t.Tree) -> str:
    """dtype=bf16: the word itself, not a name of the recipe."""
    return dtype_name(tree.name if isinstance(tree, t.Name) and not tree.module else tree.span.text)


def option_heads(value: Any, text: str) -> Node:
    """heads=a: an adapter declared in the recipe that has heads; raises PEM0342."""
    if not isinstance(value, Node) or value.adapter is None:
        raise Fault(
            "PEM0342",
            f"`{text}` is not a declared adapter",
            "heads=NAME takes the name of an adapter whose heads to keep",
        )
    if not value.adapter.layout.heads:
        raise Fault(
            "PEM0342", f"`{text}` has no heads (modules_to_save)", "choose an adapter that has them"
        )
    return value


def output_path(path: str, directory: Path, root: Path) -> Path:
    """The directory a save writes; raises PEM0345 when it is not inside `root`."""
    parts = Path(path).parts
    bad = not parts or Path(path).is_absolute() or ".." in parts or not path.isprintable()
    target = directory / path
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


def heads_agree(
    graph: Graph, node: Node, heads: Node | None, name: Callable[[Node], str]
) -> Sequence[Node]:
    """The leaves whose heads a save must hold equal, from headers alone.

    Raises:
        Fault: PEM0346 when the adapters have different heads and none is chosen, or a site lies
            inside a head.
    """
    chosen = (heads,) if heads is not None else _agreed(graph, node, name)
    for leaf in chosen[:1]:
        _outside(leaf, adapter_type(node).shapes)
    return chosen


def _outside(holder: Node, sites: Iterable[str]) -> None:
    """Hold sites to lie outside the heads: PEFT adapts no module that it saves whole."""
    adapter = holder.adapter
    assert adapter is not None
    for head in adapter.config.modules_to_save:
        inside = [site for site in sites if f".{head}." in f".{site}."]
        if inside:
            raise Fault(
                "PEM0346",
                f"{listed(inside)} would be changed, and {visible(head)} is saved whole "
                "(modules_to_save): PEFT does not adapt what it saves whole",
                'leave these modules out, as in x["*.q_proj", "*.v_proj"]',
            )


def _agreed(graph: Graph, node: Node, name: Callable[[Node], str]) -> Sequence[Node]:
    """The leaves, whose heads must be the same; none where no leaf has any."""
    leaves = graph.parts(node)
    if not any(_heads(leaf) for leaf in leaves):
        return ()
    first = _heads(leaves[0])
    for leaf in leaves[1:]:
        if _signature(_heads(leaf)) != _signature(first):
            told = sorted(leaves, key=name)
            holder = next(leaf for leaf in told if _heads(leaf))
            raise Fault(
                "PEM0346",
                "the adapters have different heads (modules_to_save): a sum has no meaning there",
                f"with heads={name(holder)}",
                tuple(f"{name(x)} has {listed(_heads(x)) or 'none'}" for x in told[:4]),
            )
    return leaves


def _heads(leaf: Node) -> Mapping[str, Any]:
    adapter: Adapter | None = leaf.adapter
    assert adapter is not None
    return adapter.layout.heads


def _signature(heads: Mapping[str, Any]) -> object:
    return {key: (entry.dtype, entry.shape) for key, entry in heads.items()}
