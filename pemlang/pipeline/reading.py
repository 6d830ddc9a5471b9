"""The parameters of adapters as numbers, a site at a time: for what compares and shows them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager

from pemlang.execute.cpu import CpuExecutor
from pemlang.execute.executor import no_progress
from pemlang.execute.machine import one_algebra_thread
from pemlang.execute.site import run_call
from pemlang.graph.node import AdapterNode, Graph
from pemlang.kernels.builder import Builder
from pemlang.kernels.site import SitePart
from pemlang.lower.lowering import Lowering
from pemlang.modules.record import SiteBuilder
from pemlang.pipeline.faults import worded
from pemlang.pipeline.jobs import measuring_with
from pemlang.tensorfiles.dtypes import Array
from pemlang.tensorfiles.reader import TensorReader


class SiteReader:
    """Reads adapters of one graph.

    Attributes:
        files: what the tensors are read from.
    """

    def __init__(self, graph: Graph, files: TensorReader) -> None:
        self.files = files
        self._lowering = Lowering(graph, measuring_with(CpuExecutor, files, no_progress))

    def parts(self, nodes: Sequence[AdapterNode], site: str) -> list[SitePart | None]:
        """The parameters of some adapters at a site; None of one that is zero or not there.

        Raises:
            Fault: PEM0502 an input that is not finite, PEM0503 a number too large on the way.
        """
        builder: SiteBuilder = Builder()
        lowered = self._lowering.lower(builder, nodes, site)
        for index, part in enumerate(lowered):
            for factor, value in enumerate(() if part is None else part.values):
                builder.report(value, (index, factor))
        arrays: dict[Hashable, Array] = {}
        for call in builder.calls(shapes=True):
            results = run_call(call, self.files)
            arrays |= {call.outputs[slot]: array for slot, array in results.items()}
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
def reading(graph: Graph) -> Iterator[SiteReader]:
    """A reader of adapters; what goes wrong inside is raised as a Fault."""
    with one_algebra_thread(), worded(), TensorReader() as files:
        yield SiteReader(graph, files)
