"""What the passes of a check leave: everything that is known about a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pemlang.check.conditions import Assertion
from pemlang.check.elaborate import Elaborator, Loaders
from pemlang.check.options import Output
from pemlang.check.program import Program
from pemlang.check.scope import Scope
from pemlang.diagnostics import Report
from pemlang.graph.node import Graph, Node
from pemlang.ops.record import Watch
from pemlang.source import Source, Span


@dataclass
class Checked:
    """A recipe that has been through the passes.

    Attributes:
        path, source: the recipe.
        settings: values given for its params.
        loaders, root: how files are reached; where outputs may lie.
        report: everything found.
        program: its files, parsed.
        scopes: the names of each file.
        elaborator: the graph, and what to look at once weights are read.
        outputs, assertions: its saves and asserts.
        params: the value of each param of the main file.
    """

    path: Path
    source: Source
    settings: Mapping[str, str | float | bool]
    loaders: Loaders
    root: Path
    report: Report = field(default_factory=Report)
    program: Program = field(init=False)
    scopes: dict[Path, Scope] = field(default_factory=dict)
    elaborator: Elaborator = field(init=False)
    outputs: list[Output] = field(default_factory=list)
    assertions: list[Assertion] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        return self.elaborator.graph

    @property
    def scope(self) -> Scope:
        return self.scopes[self.path]

    @property
    def watches(self) -> list[tuple[Watch, Span]]:
        return self.elaborator.watches

    def leaf_name(self, node: Node) -> str:
        """What the recipe calls an adapter."""
        found = self.elaborator.leaves.get(node)
        return "?" if found is None else found.name
