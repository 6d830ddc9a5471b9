"""What is worth a warning once weights are read: assertions, truncation, rounding, zeros."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pemlang.artifact.provenance import Loss, Outcome
from pemlang.check.assertions import failure
from pemlang.check.checked import Checked
from pemlang.check.outputs import Output
from pemlang.diagnostics import Diagnostic, Fault, placed, visible
from pemlang.execute.result import OutputSeen
from pemlang.graph.node import AdapterNode
from pemlang.graph.normal import Mix
from pemlang.kernels.plan import NumberSink, TruncationKey
from pemlang.kernels.rounding import WORTH_SAYING as ROUNDING_WORTH_SAYING
from pemlang.lower.lowering import Lowering
from pemlang.lower.measuring import Measuring
from pemlang.lower.plan import PlannedOutput
from pemlang.ops.exact import restrict
from pemlang.ops.measures import measure
from pemlang.ops.record import Context, Watch
from pemlang.source import Span
from pemlang.tensorfiles.dtypes import Array

LOSS_WORTH_SAYING = 0.01
OVERLAP_WORTH_SAYING = 0.5
OVERLAP_SITES = 2
"""An initialisation is one draw for all sites, so that two tell as much as all."""


def verify(checked: Checked, lowering: Lowering, measuring: Measuring) -> list[Diagnostic]:
    """Hold the assertions, and look at what is worth a warning; raises PemError PEM0501."""
    failed = []
    for assertion in checked.assertions:
        with placed(assertion.span):
            wrong = failure(assertion, lowering.value)
        if wrong is not None:
            failed.append(wrong)
    checked.told(failed).raise_errors()
    made_from = checked.graph.order(output.node for output in checked.outputs)
    mixes = [
        frozenset(node.args)
        for node in made_from
        if isinstance(node, AdapterNode) and node.by_factors
    ]
    looked_at = []
    for watch, span in checked.watches:
        if not any(watch.terms <= mixed for mixed in mixes):
            continue  # no output holds this ⊕
        with placed(span):
            ctx = Context(checked.graph, watch.texts)
            ends = [_one_term(ctx, watch.left), _one_term(ctx, watch.right)]
            looked_at.append((watch, span, measure(ctx, "init_overlap", *ends)))
    measuring.read_ahead(lowering, [node for *_, node in looked_at], OVERLAP_SITES)
    warnings = []
    for watch, span, node in looked_at:
        with placed(span):
            overlap, seen, total = measuring.sampled(lowering, node, OVERLAP_SITES)
        if overlap < OVERLAP_WORTH_SAYING:
            where = f" over {seen} of {total} sites" if OVERLAP_SITES == seen < total else ""
            warnings.append(_apart(watch, overlap, where, span))
    return warnings


def _one_term(ctx: Context, node: AdapterNode) -> AdapterNode:
    """The first term of a ⊕, at the sites of the ⊕; any other value as it is.

    In a chain x ⊕ y ⊕ z, y has been compared with x already: comparing z with one of them is
    enough, and does not read all of them again.
    """
    if not isinstance(node, Mix):
        return node
    return restrict(ctx, node.terms[0], frozenset(node.shapes))


def _apart(watch: Watch, overlap: float, where: str, span: Span) -> Diagnostic:
    left, right = watch.texts
    fault = Fault(
        "PEM0701",
        f"`{left}` and `{right}` do not share an initialisation: "
        f"init_overlap is {overlap:.2f}{where}",
        watch.instead or "train the adapters from one initialisation, or merge what they do",
        ("this combines A with A and B with B, which means little where the A factors lie apart: "
         "a limit that the paper names; help merges what the adapters do, at a rank",),
    )  # fmt: skip
    return fault.at(span, "warning")


def noticed(checked: Checked, output: Output, outcome: Outcome) -> list[Diagnostic]:
    """Warnings about one output that was made, now or before: PEM0702 what truncation loses,
    PEM0704 what rounding changes, PEM0703 that it is zero, PEM0707 that
    not every reader takes its ranks."""
    warnings = []
    for node in checked.graph.order([output.node]):
        loss = outcome.losses.get(node.key)
        if isinstance(node, AdapterNode) and loss is not None and loss.total > LOSS_WORTH_SAYING:
            warnings.append(_lossy(output, loss, node))
    if outcome.rounding > ROUNDING_WORTH_SAYING:
        warnings.append(_coarse(output, outcome.rounding))
    if outcome.ranks:
        warnings.append(_of_unlike_ranks(output, outcome.ranks))
    if outcome.is_zero:
        message = f"`{output.label}` is zero: the adapter saved does nothing"
        fault = Fault("PEM0703", message, "see whether its terms are meant to cancel")
        warnings.append(fault.at(output.span, "warning"))
    return warnings


def _of_unlike_ranks(output: Output, ranks: str) -> Diagnostic:
    fault = Fault(
        "PEM0707",
        f"`{output.label}` has ranks from {ranks}: SGLang refuses such an adapter, and llama.cpp "
        "scales it wrongly",
        "save it with reader=vllm, sglang or llama_cpp, which fills up with zeros, or with "
        "reader=peft where PEFT alone loads it",
    )
    return fault.at(output.span, "warning")


def _coarse(output: Output, rounding: float) -> Diagnostic:
    fault = Fault(
        "PEM0704",
        f"rounding `{output.label}` to the numbers of its file changes it by {rounding:.1%}",
        "save with dtype=f32",
    )
    return fault.at(output.span, "warning")


def _lossy(output: Output, loss: Loss, node: AdapterNode) -> Diagnostic:
    worst = max(loss.sites, key=lambda site: loss.sites[site], default="")
    whole = node is output.node
    of_what = f"`{output.label}`" if whole else f"what `{node.name}` cuts in `{output.label}`"
    fault = Fault(
        "PEM0702",
        f"truncation loses {loss.total:.1%} of the norm of {of_what}",
        "a larger rank loses less; energy=0.9999 finds a rank that loses at most 1 % of the norm",
        (f"most at {visible(worst)}: {loss.sites[worst]:.1%}",) if worst else (),
    )
    return fault.at(output.span, "warning")


# --- what came out ---------------------------------------------------------------------------

LOSS_DIGITS = 9
"""Decimals of what a truncation took."""

Cuts = Mapping[str, tuple[float, float, int]]
"""By site: what a truncation took, the norm of what it cut, and how far the rank came down."""


def outcome_of(
    output: Output,
    planned: PlannedOutput,
    size: int,
    seen: OutputSeen,
    cuts: Mapping[str, Cuts],
    algebra: str = "",
) -> Outcome:
    """What came out.

    Args:
        output: that was made.
        planned: the same as it was planned.
        size: of the tensors' file.
        seen: while it was written.
        cuts: its truncations, by the key of their node.
        algebra: what its last digits go by, see Outcome.
    """
    losses = {key: _loss(sites) for key, sites in sorted(cuts.items())}
    return Outcome(
        method=output.node.type.method,
        sites=len(planned.ranks),
        rank=max(planned.ranks.values()),
        size=size,
        losses={key: loss for key, loss in losses.items() if loss is not None},
        rounding=seen.worst_rounding,
        is_zero=planned.idle or seen.is_zero,
        format=planned.format.name if planned.format.one_file else "",
        algebra=algebra,
        ranks=_unlike(output, planned),
    )


def _unlike(output: Output, planned: PlannedOutput) -> str:
    """See Outcome.ranks."""
    ranks = [rank for rank in planned.ranks.values() if rank] or [0]  # a bias has none
    least, most = min(ranks), max(ranks)
    told = least == most or output.reader is not None or planned.format.one_file
    return "" if told else f"{least} to {most}"


def truncations(numbers: Mapping[NumberSink, Array], file: int) -> dict[str, Cuts]:
    """The truncations of an output by the key of their node; `file` is its first."""
    cuts: dict[str, dict[str, tuple[float, float, int]]] = {}
    for sink, cost in numbers.items():
        if sink.output == file and isinstance(sink.key, TruncationKey):
            lost, norm = cost.tolist()
            cuts.setdefault(sink.key.node, {})[sink.key.site] = (lost, norm, sink.key.by)
    return dict(cuts)


def _loss(cuts: Cuts) -> Loss | None:
    """What a truncation took; None where it cut nothing."""
    if not any(by for _, _, by in cuts.values()):
        return None
    lost, norm = (_total([cut[index] for cut in cuts.values()]) for index in (0, 1))
    sites = {site: _share(lost, norm) for site, (lost, norm, by) in cuts.items() if by}
    return Loss(_share(lost, norm), dict(sorted(sites.items())))


def _share(lost: float, norm: float) -> float:
    """A part of a norm, to the digits that are the same wherever it is computed."""
    return round(lost / norm, LOSS_DIGITS) if norm else 0.0


def _total(norms: Sequence[float]) -> float:
    return math.hypot(*norms)
