"""The node of an adapter on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pemlang.formats.peft import Adapter
from pemlang.graph.node import Node
from pemlang.ops.record import NodeKind, Run, node_kind

if TYPE_CHECKING:
    from pemlang.modules.factors import Factors


def _adapter(node: Node) -> Adapter:
    assert node.adapter is not None
    return node.adapter


def _lower(run: Run, node: Node, site: str, _: Mapping[Node, Factors | None]) -> Factors | None:
    return run.read(node)


LEAF = node_kind(
    NodeKind(
        "leaf",
        lambda node: _adapter(node).layout.ranks,
        lambda node: _adapter(node).scales,
        _lower,
        lambda node: True,
    )
)
