"""The parameters of adapters as numbers, a site at a time: for what compares and shows them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from pemlang.diagnostics import Fault, visible
from pemlang.execute.cpu import CpuExecutor
from pemlang.execute.executor import no_progress
from pemlang.execute.machine import default_budget, one_algebra_thread
from pemlang.execute.site import by_tiles, run_call, run_tiles
from pemlang.failures import TooLarge
from pemlang.graph.dag import Graph
from pemlang.graph.formula import size_text
from pemlang.graph.node import AdapterNode
from pemlang.kernels.builder import Builder, KernelCall
from pemlang.kernels.lowrank import finite
from pemlang.kernels.site import SitePart
from pemlang.lower.lowering import Lowering
from pemlang.modules import SiteValues
from pemlang.modules.record import SiteBuilder
from pemlang.pipeline.faults import worded
from pemlang.pipeline.jobs import measuring_with
from pemlang.tensorfiles.dtypes import Array
from pemlang.tensorfiles.reader import TensorReader
from pemlang.tensorfiles.reference import TensorRef

BYTES_A_NUMBER = 24
"""What measuring a site takes for each of its parameters: they are read, widened and multiplied."""


TILE = 1 << 18
"""Numbers of a tensor that are looked at together."""

ReadingCall: TypeAlias = KernelCall[TensorRef, Hashable]


class SiteReader:
    """Reads adapters of one graph.

    Attributes:
        files: what the tensors are read from.
    """

    def __init__(self, graph: Graph, files: TensorReader) -> None:
        self.files, self._graph = files, graph
        self._lowering = Lowering(graph, measuring_with(CpuExecutor, files, no_progress))

    def parts(self, nodes: Sequence[AdapterNode], site: str) -> list[SitePart | None]:
        """The parameters of some adapters at a site; None of one that is zero or not there.

        Raises:
            Fault: PEM0502 an input that is not finite, PEM0503 a number too large on the way,
                PEM0521 a site that takes more memory than there is to work in.
        """
        lowered, calls = self._lowered(nodes, site)
        return self._whole(nodes, site, lowered, calls)

    def tiles(self, nodes: Sequence[AdapterNode], site: str) -> Iterator[list[SitePart | None]]:
        """The parameters of adapters of one tensor at a site, some of its numbers after others: all
        at once where an adapter does not treat every number alike. Raises as `parts`."""
        lowered, calls = self._lowered(nodes, site)
        if not all(map(by_tiles, calls)):
            yield self._whole(nodes, site, lowered, calls)
            return
        runs = [run_tiles(call, self.files, TILE) for call in calls]
        for results in zip(*runs, strict=True):
            yield _site_parts(lowered, calls, results)

    def _lowered(
        self, nodes: Sequence[AdapterNode], site: str
    ) -> tuple[list[SiteValues | None], list[ReadingCall]]:
        """The parameters as values of programs, and the programs."""
        builder: SiteBuilder = Builder()
        lowered = self._lowering.lower(builder, nodes, site)
        for index, part in enumerate(lowered):
            for factor, value in enumerate(() if part is None else part.values):
                builder.report(value, (index, factor))
        return lowered, builder.calls(shapes=True)

    def _whole(
        self,
        nodes: Sequence[AdapterNode],
        site: str,
        lowered: Sequence[SiteValues | None],
        calls: Sequence[ReadingCall],
    ) -> list[SitePart | None]:
        self._hold_memory(nodes, site)
        return _site_parts(lowered, calls, [run_call(call, self.files) for call in calls])

    def _hold_memory(self, nodes: Sequence[AdapterNode], site: str) -> None:
        leaves = {leaf for node in nodes for leaf in self._graph.leaves(node)}
        numbers = sum(leaf.adapter.numbers_at(site) for leaf in leaves)
        needed, allowed = numbers * BYTES_A_NUMBER, default_budget()
        if needed > allowed:
            raise Fault(
                "PEM0521",
                f"{visible(site)} takes {size_text(needed)} of memory to measure, and half of "
                f"this machine's is {size_text(allowed)}",
                "look at it on a machine that has more",
            )


def _site_parts(
    lowered: Sequence[SiteValues | None],
    calls: Sequence[ReadingCall],
    results: Sequence[Mapping[int, Array]],
) -> list[SitePart | None]:
    """The parameters of adapters, from what programs gave by slot."""
    arrays: dict[Hashable, Array] = {}
    for call, outputs in zip(calls, results, strict=True):
        arrays |= {call.outputs[slot]: array for slot, array in outputs.items()}
    return [
        None
        if part is None
        else SitePart(
            part.parametrisation,
            tuple(arrays[index, factor] for factor in range(len(part.values))),
            part.scale,
        )
        for index, part in enumerate(lowered)
    ]


@contextmanager
def measurable(name: str) -> Iterator[None]:
    """What is measured of something stays finite; raises Fault PEM0503 that names it."""
    try:
        with finite():
            yield
    except TooLarge:
        raise Fault(
            "PEM0503",
            f"{visible(name)} is too large to be measured: a number on the way passes 1e308",
            "look at its scales and norms with `pem inspect`, and scale it down",
        ) from None


@contextmanager
def reading_files() -> Iterator[TensorReader]:
    """A reader of files of tensors; what goes wrong inside is raised as a Fault."""
    with one_algebra_thread(), worded(), TensorReader() as files:
        yield files


@contextmanager
def reading(graph: Graph) -> Iterator[SiteReader]:
    """A reader of adapters; what goes wrong inside is raised as a Fault."""
    with reading_files() as files:
        yield SiteReader(graph, files)
