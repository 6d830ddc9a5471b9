"""What is worth a warning once weights are read: assertions, truncation, rounding, zeros."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pemlang.artifact.provenance import Loss, Outcome
from pemlang.artifact.staging import placed
from pemlang.check.checked import Checked
from pemlang.check.conditions import failure
from pemlang.check.options import Output
from pemlang.diagnostics import Diagnostic, Fault, PemError, visible
from pemlang.execute.local import Report
from pemlang.graph.node import Node
from pemlang.graph.normal import adapter_type
from pemlang.kernels.rounding import WORTH_SAYING as ROUNDING_WORTH_SAYING
from pemlang.lower.evaluate import Evaluator
from pemlang.ops.exact import restrict
from pemlang.ops.measures import measure
from pemlang.ops.record import Context, Watch
from pemlang.source import Span

LOSS_WORTH_SAYING = 0.01
OVERLAP_WORTH_SAYING = 0.5
OVERLAP_SITES = 2
"""An initialisation is one draw for all sites, so that two tell as much as all."""


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
    mixes = [frozenset(node.args) for node in made_from if _by_factors(node)]
    warnings = []
    for watch, span in checked.watches:
        if not any(watch.terms <= mixed for mixed in mixes):
            continue  # no output holds this ⊕
        with placed(span):
            ctx = Context(checked.graph, watch.texts)
            ends = [_one_term(ctx, watch.left), _one_term(ctx, watch.right)]
            node = measure(ctx, "init_overlap", ends)
            overlap, seen, there = evaluator.sampled(node, OVERLAP_SITES)
        if overlap < OVERLAP_WORTH_SAYING:
            where = f" over {seen} of {there} sites" if OVERLAP_SITES == seen < there else ""
            warnings.append(_apart(watch, overlap, where, span))
    return warnings


def _by_factors(node: Node) -> bool:
    """Whether it combines A with A and B with B."""
    return node.op == "mix" or (node.op == "merge" and node.attrs[1] == "factors")


def _one_term(ctx: Context, node: Node) -> Node:
    """One term of a ⊕ at its sites. The terms before it were held to each other already, and a
    chain of many would be read again for each."""
    if node.op != "mix":
        return node
    return restrict(ctx, node.args[0], frozenset(adapter_type(node).shapes))


def _apart(watch: Watch, overlap: float, where: str, span: Span) -> Diagnostic:
    one, two = watch.texts
    fault = Fault(
        "PEM0701",
        f"`{one}` and `{two}` do not share an initialisation: init_overlap is {overlap:.2f}{where}",
        f'add what they do instead, exactly, and choose a rank: save {watch.exact} to "…" '
        "with rank=16",
        ("⊕ and ⊖ combine A with A and B with B, which means little where the A factors lie "
         "apart: a limit that the paper names",),
    )  # fmt: skip
    return fault.at(span, "warning")


def noticed(checked: Checked, output: Output, outcome: Outcome) -> list[Diagnostic]:
    """Warnings about one output that was made, now or before: PEM0702 what truncation loses,
    PEM0704 what rounding changes, PEM0703 that it is zero."""
    losses = {node: outcome.losses.get(node.key) for node in checked.graph.order([output.node])}
    warnings = [
        _lossy(output, loss, node)
        for node, loss in losses.items()
        if loss and loss.total > LOSS_WORTH_SAYING
    ]
    if outcome.rounding > ROUNDING_WORTH_SAYING:
        warnings.append(_coarse(output, outcome.rounding))
    if outcome.is_zero:
        fault = Fault("PEM0703", f"`{output.label}` is zero: the adapter saved does nothing")
        warnings.append(fault.at(output.span, "warning"))
    return warnings


def outcome_of(
    output: Output, ranks: Mapping[str, int], size: int, report: Report, idle: bool
) -> Outcome:
    """What came out.

    Args:
        output: that was made.
        ranks: the rank at each site that was written.
        size: of the tensors' file.
        report: what was seen while it was written.
        idle: whether it does nothing whatever its tensors hold.
    """
    cuts = {node.key: _loss_of(report, node) for node in report.cuts}
    return Outcome(
        method=adapter_type(output.node).method,
        sites=len(ranks),
        rank=max(ranks.values()),
        size=size,
        losses={key: loss for key, loss in sorted(cuts.items()) if loss is not None},
        rounding=report.worst_rounding,
        is_zero=idle or report.is_zero,
    )


def _coarse(output: Output, rounding: float) -> Diagnostic:
    fault = Fault(
        "PEM0704",
        f"rounding `{output.label}` to the numbers of its file changes it by {rounding:.1%}",
        "with dtype=f32",
    )
    return fault.at(output.span, "warning")


def _lossy(output: Output, loss: Loss, node: Node) -> Diagnostic:
    worst = max(loss.sites, key=lambda site: loss.sites[site], default="")
    word = "compress" if node.op == "compress" else node.attrs[0]
    whole = node is output.node
    of_what = f"`{output.label}`" if whole else f"what `{word}` cuts in `{output.label}`"
    fault = Fault(
        "PEM0702",
        f"truncation loses {loss.total:.1%} of the norm of {of_what}",
        "a larger rank loses less; energy=0.9999 finds a rank that loses at most 1 % of the norm",
        (f"most at {visible(worst)}: {loss.sites[worst]:.1%}",) if worst else (),
    )
    return fault.at(output.span, "warning")


def _loss_of(report: Report, node: object) -> Loss | None:
    """What the truncation at a node took; None where it cut nothing."""
    cuts = report.cuts.get(node, {})
    if not any(by for _, _, by in cuts.values()):
        return None
    lost, norm = (_total([cut[i] for cut in cuts.values()]) for i in (0, 1))
    sites = {s: lost / norm if norm else 0.0 for s, (lost, norm, by) in cuts.items() if by}
    return Loss(lost / norm if norm else 0.0, dict(sorted(sites.items())))


def _total(norms: Sequence[float]) -> float:
    return math.hypot(*norms)
