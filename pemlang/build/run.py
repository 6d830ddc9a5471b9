"""Build: check, identify by content, assert, evaluate, write; nothing is written before all of it
is known to be right."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import networkx as nx
from threadpoolctl import threadpool_limits

from pemlang.build.card import Card, Input, write_card
from pemlang.build.evaluate import Evaluator
from pemlang.build.peft import PeftAdapter, adapters_of, as_peft
from pemlang.build.place import check_target, flush, new_stage, staging, take_place
from pemlang.build.tensors import adapter_digest, file_digest
from pemlang.check.check import check
from pemlang.check.checked import Checked
from pemlang.check.conditions import Known, failure
from pemlang.check.load import loaders
from pemlang.check.options import Output, heads_agree
from pemlang.diagnostics import Diagnostic, Fault, PemError, visible
from pemlang.formats import safetensors
from pemlang.graph.node import AdapterType, Node, plain
from pemlang.graph.normal import adapter_type
from pemlang.graph.numbers import shown
from pemlang.ops.measures import init_overlap
from pemlang.ops.record import Context, Watch
from pemlang.resources import resource
from pemlang.source import Source, Span

LOSS_WORTH_SAYING = 0.01
OVERLAP_WORTH_SAYING = 0.5
WHOLE_MODELS = ("model", "bake", "task_vector")

Tick = Callable[[str, int, int], None]
"""Called with what is being made, the steps done and the steps in all."""


@dataclass(frozen=True)
class Loss:
    """What truncation took from one output: relative Frobenius error, in all and per site."""

    total: float
    sites: Mapping[str, float]


@dataclass(frozen=True)
class Built:
    """One output.

    Attributes:
        path: the directory.
        label: what was saved, as written.
        method: lora or ia3.
        sites: how many modules it changes.
        rank: the largest rank; None for (IA)³.
        size: bytes of its tensors' file.
        semantic_hash: equal for outputs of equal meaning.
        loss: what truncation took; None where nothing was cut.
    """

    path: Path
    label: str
    method: str
    sites: int
    rank: int | None
    size: int
    semantic_hash: str
    loss: Loss | None


@dataclass(frozen=True)
class Result:
    """What a build made, and the warnings on the way."""

    outputs: tuple[Built, ...]
    warnings: tuple[Diagnostic, ...]


def identified(
    path: Path,
    source: Source,
    settings: Mapping[str, str | float | bool],
    root: Path | None = None,
) -> Checked:
    """A checked recipe whose adapters are known by content.

    It is checked from headers first, so that no tensor is fetched for a recipe that is wrong.

    Raises:
        PemError: everything wrong with it.
    """
    check(path, source, loaders(), settings, root).report.raise_errors()
    checked = check(path, source, loaders(whole=True, identify=adapter_digest), settings, root)
    checked.report.raise_errors()
    return checked


def build(
    path: Path,
    source: Source,
    settings: Mapping[str, str | float | bool],
    root: Path | None = None,
    tick: Tick = lambda what, done, total: None,
) -> Result:
    """Build every `save` of a recipe.

    Args:
        path, source: the recipe.
        settings: values for its params.
        root: the folder its outputs lie in; the recipe's own when not given.
        tick: told of progress.

    Raises:
        PemError: with everything wrong; nothing has been written then.
    """
    checked = identified(path, source, settings, root)
    if not checked.outputs:
        raise PemError(
            [Fault("PEM0114", "the recipe saves nothing", 'save x to "out/x"').at(_whole(source))]
        )
    refuse_models(checked)
    inputs = {
        node.adapter.directory.resolve() for node in checked.graph.all_leaves() if node.adapter
    }
    for output in checked.outputs:
        with placed(output.span):
            check_target(output.target, inputs)
    # One thread in the linear algebra: the same bytes whatever the machine.
    with threadpool_limits(1):
        progress = _Progress(checked, tick)
        evaluator = Evaluator(checked.graph, progress.step)
        warnings = [*checked.report, *verify(checked, evaluator)]
        with staging() as stage:
            built = []
            for output in checked.outputs:
                with placed(output.span):
                    progress.begin(output)
                    made = _make(checked, evaluator, output)
                    warnings += made.warnings
                    built.append(_write(checked, output, made, new_stage(output.target, stage)))
            for output, one in zip(checked.outputs, stage.directories, strict=True):
                with placed(output.span):
                    take_place(one, inputs)
    return Result(tuple(built), tuple(warnings))


class _Progress:
    def __init__(self, checked: Checked, tick: Tick) -> None:
        self._tick, self._done, self._what = tick, 0, "measuring"
        self._total = sum(len(adapter_type(o.node).shapes) for o in checked.outputs)

    def begin(self, output: Output) -> None:
        self._what = output.path

    def step(self) -> None:
        if self._what == "measuring":
            self._tick(self._what, 0, self._total)
            return
        self._done = min(self._done + 1, self._total)  # a weight may be measured on the way
        self._tick(self._what, self._done, self._total)


def _whole(source: Source) -> Span:
    return Span(source, 0, 0)


@contextmanager
def placed(span: Span | None) -> Iterator[None]:
    """Faults and file errors as diagnostics of a place in the recipe."""
    try:
        yield
    except Fault as fault:
        raise PemError([fault.at(span)]) from None
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "there is no space left on the disk" if full else str(error.strerror or error)
        name = f" ({visible(error.filename)})" if error.filename else ""
        unwritable = Fault(
            "PEM0512", f"cannot write: {what}{name}", "make room or change the path, and build "
            "again",
        )  # fmt: skip
        raise PemError([unwritable.at(span)]) from None


def refuse_models(checked: Checked) -> None:
    """Raise PEM0601 for what needs whole models, which are checked but not computed with yet."""
    wanted = [(f"`{output.label}`", [output.node], output.span) for output in checked.outputs]
    wanted += [
        ("this assertion", assertion.condition.measured(), assertion.span)
        for assertion in checked.assertions
    ]
    found = []
    for what, nodes, span in wanted:
        made_from = {*nodes}.union(*(nx.ancestors(checked.graph.nx, node) for node in nodes))
        if any(node.op in WHOLE_MODELS for node in made_from):
            fault = Fault(
                "PEM0601",
                f"{what} needs whole models: this version checks them, it does not compute with "
                "them yet",
                "use adapters made from adapters",
            )
            found.append(fault.at(span))
    if found:
        raise PemError(found)


def verify(checked: Checked, evaluator: Evaluator) -> list[Diagnostic]:
    """Hold the assertions, and look at what is worth a warning; raises PemError PEM0501."""
    failed = []
    for assertion in checked.assertions:
        with placed(assertion.span):
            found = failure(assertion, evaluator.number)
        if found is not None:
            failed.append(found)
    if failed:
        raise PemError([*checked.report, *failed])
    made_from = checked.graph.order(output.node for output in checked.outputs)
    mixes = [frozenset(node.args) for node in made_from if node.op == "mix"]
    warnings = []
    for watch, span in checked.watches:
        if not any(watch.terms <= mixed for mixed in mixes):
            continue  # no output holds this ⊕
        with placed(span):
            node = init_overlap(Context(checked.graph, watch.texts), watch.left, watch.right)
            overlap = float(evaluator.number(node))
        if overlap < OVERLAP_WORTH_SAYING:
            warnings.append(_apart(watch, overlap, span))
    return warnings


def _apart(watch: Watch, overlap: float, span: Span) -> Diagnostic:
    one, two = watch.texts
    fault = Fault(
        "PEM0701",
        f"`{one}` and `{two}` do not share an initialisation: init_overlap is {overlap:.2f}",
        f'add what they do instead, exactly, and choose a rank: save {watch.exact} to "…" '
        "with rank=16",
        ("⊕ and ⊖ combine A with A and B with B, which means little where the A factors lie "
         "apart: a limit that the paper names",),
    )  # fmt: skip
    return fault.at(span, "warning")


@dataclass(frozen=True)
class _Made:
    adapter: PeftAdapter
    loss: Loss | None
    warnings: list[Diagnostic]


def _make(checked: Checked, evaluator: Evaluator, output: Output) -> _Made:
    graph = checked.graph
    leaves = graph.parts(output.node)
    heads = heads_agree(graph, output.node, output.heads, checked.leaf_name)
    adapter = as_peft(evaluator, output.node, leaves, heads, output.dtype)
    losses = {
        node: loss_of(evaluator, node)
        for node in graph.order([output.node])
        if node.op == "compress"
    }
    warnings = [
        _lossy(output, loss, node is output.node)
        for node, loss in losses.items()
        if loss and loss.total > LOSS_WORTH_SAYING
    ]
    if adapter.rounding > LOSS_WORTH_SAYING:
        warnings.append(_coarse(output, adapter.rounding))
    if adapter.is_zero:
        fault = Fault("PEM0703", f"`{output.label}` is zero: the adapter saved does nothing")
        warnings.append(fault.at(output.span, "warning"))
    return _Made(adapter, losses.get(output.node), warnings)


def _coarse(output: Output, rounding: float) -> Diagnostic:
    fault = Fault(
        "PEM0704",
        f"rounding `{output.label}` to the numbers of its file changes it by {rounding:.1%}",
        "with dtype=f32",
    )
    return fault.at(output.span, "warning")


def _lossy(output: Output, loss: Loss, whole: bool) -> Diagnostic:
    worst = max(loss.sites, key=lambda site: loss.sites[site])
    of_what = f"`{output.label}`" if whole else f"what `compress` is given in `{output.label}`"
    fault = Fault(
        "PEM0702",
        f"truncation loses {loss.total:.1%} of the norm of {of_what}",
        "a larger rank loses less; energy=0.9999 finds a rank that loses at most 1 % of the norm",
        (f"most at {visible(worst)}: {loss.sites[worst]:.1%}",),
    )
    return fault.at(output.span, "warning")


def loss_of(evaluator: Evaluator, node: Node) -> Loss | None:
    """What the truncation at a node took; None where it cut nothing."""
    cuts = {site: cut for (at, site), cut in evaluator.run.truncations.items() if at is node}
    if not any(cut.by for cut in cuts.values()):
        return None
    norm = math.hypot(*(cut.norm for cut in cuts.values()))
    lost = math.hypot(*(cut.lost for cut in cuts.values()))
    sites = {s: cut.lost / cut.norm if cut.norm else 0.0 for s, cut in cuts.items() if cut.by}
    return Loss(lost / norm if norm else 0.0, dict(sorted(sites.items())))


def semantic_hash(output: Output) -> str:
    """A digest of the meaning of an output: its normal form, the content of its leaves (their
    keys are digests here), its options."""
    type_ = output.node.type
    assert isinstance(type_, AdapterType)
    said = [
        "pemlang 1", output.node.key, type_.base, output.dtype,
        None if output.heads is None else output.heads.key,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(plain(tuple(said))).encode()).hexdigest()


def _write(checked: Checked, output: Output, made: _Made, at: Path) -> Built:
    digest = semantic_hash(output)
    weights = at / "adapter_model.safetensors"
    with weights.open("wb") as file:
        metadata = {"format": "pt", "pemlang_semantic_hash": digest}
        safetensors.write(file, made.adapter.tensors, metadata)
    config = json.dumps(made.adapter.config, indent=2, sort_keys=True, ensure_ascii=False)
    (at / "adapter_config.json").write_text(config + "\n", encoding="utf-8")
    card = write_card(_card(checked, output, digest, made.loss))
    (at / "README.md").write_text(card, encoding="utf-8")
    flush(at)
    ranks = made.adapter.ranks
    return Built(
        path=output.target,
        label=output.label,
        method=adapter_type(output.node).method,
        sites=len(ranks),
        rank=max(ranks.values()) or None,
        size=weights.stat().st_size,
        semantic_hash=digest,
        loss=made.loss,
    )


def _card(checked: Checked, output: Output, digest: str, loss: Loss | None) -> Card:
    type_ = adapter_type(output.node)
    inputs = []
    lenders = () if output.heads is None else (output.heads,)
    for leaf in dict.fromkeys((*checked.graph.leaves(output.node), *lenders)):
        [adapter] = adapters_of([leaf])
        name, path = checked.elaborator.leaves[leaf]
        files = (adapter.directory / "adapter_config.json", adapter.weights)
        inputs.append(Input(name, path, {file.name: file_digest(file) for file in files}))
    notes = () if loss is None else (f"Truncation took {loss.total:.2%} of the norm.",)
    return Card(
        title=output.target.name,
        expression=output.label,
        method=type_.method,
        base=type_.base,
        recipe_name=Path(checked.source.name).name,
        recipe=checked.source.text,
        params={name: _param(value) for name, value in checked.params.items()},
        inputs=sorted(inputs, key=lambda one: (one.name, one.path)),
        imports=_imports(checked),
        semantic_hash=digest,
        notes=notes,
    )


def _imports(checked: Checked) -> dict[str, str]:
    """The files that the recipe imports, seen from its folder, with their digests."""
    found = {}
    for path, tree in checked.program.trees.items():
        if path != checked.path:
            std = path.parent == resource("stdlib")
            name = f"std.{path.stem}" if std else os.path.relpath(path, checked.source.directory)
            text = tree.span.source.text
            found[name] = hashlib.sha256(text.encode()).hexdigest()
    return dict(sorted(found.items()))


def _param(value: object) -> str:
    if isinstance(value, Known):
        return str(value.truth).lower()
    return shown(value) if isinstance(value, Fraction) else str(value)
