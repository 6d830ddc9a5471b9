"""What is saved, held to what the program takes that is to load it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pemlang.check.outputs import Output
from pemlang.diagnostics import Fault, listed
from pemlang.formats.adapter import Adapter, kinds_text
from pemlang.formats.holding import hold_names
from pemlang.formats.readers import READERS, OutputReader
from pemlang.formats.record import FORMATS, Format
from pemlang.graph.dag import Graph
from pemlang.graph.leaves import Stored, adapters_of
from pemlang.graph.node import AdapterNode


def hold_reader(
    output: Output, graph: Graph, heads: Sequence[Stored], mended: Callable[[str], str]
) -> None:
    """Hold an adapter to what its reader takes; raises PEM0367.

    Args:
        output, graph: what is saved.
        heads: those whose heads are saved with it.
        mended: the `save` with one more option.
    """
    reader, node = output.reader, output.node
    if reader is None or not isinstance(node, AdapterNode):
        return
    record = output.format_of(graph)
    if record.name not in reader.formats:
        raise _refused(reader, f"no files of {record.name}", _other_format(output, graph, mended))
    other = [kind for kind in node.shapes.kinds if kind not in reader.kinds]
    if other:
        why = f"no {kinds_text(other)} sites"
        raise _refused(
            reader,
            why,
            "leave norms and biases out, and make LoRAs of weights: compress(x, rank=16)"
            if record.one_file
            else "save it with reader=peft, or bake it into a model: b + x",
        )
    layers = [x for x in node.shapes if reader.layers and node.shapes[x].layer not in reader.layers]
    if layers:
        why = f"no {node.shapes[layers[0]].layer} modules, as {listed(layers)}"
        raise _refused(reader, why, "leave these modules out, or save it with reader=peft")
    most = max(node.ranks.values())
    if reader.max_rank is not None and most > reader.max_rank:
        why = f"no rank above {reader.max_rank}, and here it is {most}"
        raise _refused(reader, why, mended(f"rank={reader.max_rank}"))
    whole = [module for lender in heads[:1] for module in lender.adapter.whole_modules]
    trained = [key for lender in heads[:1] for key in sorted(lender.adapter.layout.of_base)]
    if trained and not reader.heads:
        why = f"no trained biases or rows of tokens, as {listed(trained)}"
        raise _refused(reader, why, "bake it into a model, b + x; or leave them: heads=none")
    if whole and not reader.heads:
        why = f"no modules saved whole (modules_to_save), as {listed(whole)}"
        raise _refused(reader, why, mended("heads=none"))


def _refused(reader: OutputReader, what: str, help: str) -> Fault:
    return Fault("PEM0367", f"{reader.title} takes {what}", help)


def _other_format(output: Output, graph: Graph, mended: Callable[[str], str]) -> str:
    """What to write where a reader does not read the files that would be made."""
    inputs = adapters_of(graph.parts(output.node))
    assert output.reader is not None
    now = output.format_of(graph)
    if output.format is None:
        for record in (FORMATS[name] for name in output.reader.formats):
            if record.one_file == now.one_file and _has_names(record, inputs, output):
                return mended(f"format={record.name}")
    readers = [other.name for other in READERS.values() if now.name in other.formats]
    return f"save it for one that reads files of {now.name}: {listed(readers)}"


def _has_names(record: Format, inputs: Sequence[Adapter], output: Output) -> bool:
    """Whether files of a format have names for the sites of an output."""
    try:
        hold_names(record, inputs, output.node.shapes)
    except Fault:
        return False
    return True
