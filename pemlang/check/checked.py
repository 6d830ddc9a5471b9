"""What a check leaves: everything that is known about a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pemlang.check.assertions import Assertion
from pemlang.check.files import RecipeFiles
from pemlang.check.outputs import Output, semantic_hash
from pemlang.check.params import DeclaredParam
from pemlang.check.tests import CheckedTest, Printed
from pemlang.check.values import Declared, ParamConstant, Params, RecipeValue, Spelling
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Diagnostic, PemError, Report
from pemlang.formats.adapter import Adapter
from pemlang.graph.dag import Graph
from pemlang.graph.leaves import Stored
from pemlang.graph.node import Node
from pemlang.graph.rebuild import Rebuilding
from pemlang.ops.record import Watch
from pemlang.source import Source, Span


@dataclass(frozen=True, eq=False)
class Checked:
    """A recipe that has been through the passes.

    Attributes:
        path, source: the recipe.
        settings: values given for its params.
        diagnostics: what is wrong, and what is worth a warning, in source order.
        files: the recipe and what it imports, parsed.
        graph: its values.
        leaves: how each adapter is declared.
        spellings: all the ways in which each adapter's place is spelt.
        watches: what to look at once weights are read, with its place.
        outputs, assertions, prints: its saves, asserts and prints.
        tests: its tests, where they were checked too.
        params: the value of each param of the main file.
        declared: how each of them is declared.
        names: what the names of the main file stand for, in the order they are declared.
        places: where they are declared.
    """

    path: Path
    source: Source
    settings: Params
    diagnostics: Sequence[Diagnostic]
    files: RecipeFiles
    graph: Graph
    leaves: Mapping[Stored, Declared]
    spellings: Mapping[Stored, Sequence[Spelling]]
    watches: Sequence[tuple[Watch, Span]]
    outputs: Sequence[Output]
    assertions: Sequence[Assertion]
    prints: Sequence[Printed]
    tests: Sequence[CheckedTest]
    params: Mapping[str, ParamConstant]
    declared: Mapping[str, DeclaredParam]
    names: Mapping[str, RecipeValue]
    places: Mapping[str, Span]

    def raise_errors(self) -> None:
        """Raise PemError with everything there is to say if any of it is an error."""
        if any(told.severity == "error" for told in self.diagnostics):
            raise PemError(self.diagnostics)

    def told(self, more: Iterable[Diagnostic]) -> Checked:
        """The same, with more to say."""
        report = Report()
        for diagnostic in (*self.diagnostics, *more):
            report.add(diagnostic)
        return replace(self, diagnostics=tuple(report))

    def leaf_name(self, node: Node) -> str:
        """What the recipe calls an adapter."""
        declared = self.leaves.get(node) if isinstance(node, Stored) else None
        return "?" if declared is None else declared.name

    def made_from(self, output: Output) -> list[Stored]:
        """The adapters and models that an output is made from, and those that lend it their heads
        or tokenizer."""
        lenders = [leaf for leaf in (output.heads, output.tokenizer) if leaf is not None]
        return list(dict.fromkeys((*self.graph.leaves(output.node), *lenders)))

    def hash(self, output: Output) -> str:
        """The semantic hash of an output; right where the adapters are known by their content."""
        return semantic_hash(output, self.graph)

    def identified(self, leaves: Mapping[Stored, tuple[str, Adapter]]) -> Checked:
        """The same recipe, its adapters known by other identities: the graph is made again, and
        no statement is evaluated.

        Args:
            leaves: what each adapter is known by from now on, and what is known of it.
        """
        new = Rebuilding(leaves)
        return replace(
            self,
            graph=new.graph,
            leaves={new.node(leaf): declared for leaf, declared in self.leaves.items()},
            spellings={new.node(leaf): spelt for leaf, spelt in self.spellings.items()},
            watches=[(watch.rebuilt(new), span) for watch, span in self.watches],
            outputs=[output.rebuilt(new) for output in self.outputs],
            assertions=[assertion.rebuilt(new) for assertion in self.assertions],
            prints=[printed.rebuilt(new) for printed in self.prints],
            tests=[test.rebuilt(new) for test in self.tests],
            names={
                name: new.node(value) if isinstance(value, Node) else value
                for name, value in self.names.items()
            },
        )
