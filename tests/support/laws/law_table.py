"""The table of the laws that operators' records state, and of those that the normal form promises
beside them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Law:
    """Both sides over x, y, z (operands) and m, n (numbers).

    `operands` are any adapters on the same modules ("any"), ones that ⊕ takes ("like"), or
    whole leaves of rank 2 ("leaf"). `one_node` says that both sides are one.
    """

    left: str
    right: str
    operands: str = "any"
    one_node: bool = True

    @property
    def text(self) -> str:
        return self.left + self.right


def numbers_alone(left: str, right: str, operands: str = "any") -> Law:
    """A law of numbers: its sides are computed in different ways."""
    return Law(left, right, operands, one_node=False)


SAME_BAND = numbers_alone(
    "breadcrumbs([x, y], density=0.4, gamma=0)", "magnitude_prune([x, y], density=0.4)"
)
LAWS_OF = {
    "add": {
        "x + y = y + x": Law("x + y", "y + x"),
        "(x + y) + z = x + (y + z)": Law("(x + y) + z", "x + (y + z)"),
        "a·x + b·x = (a + b)·x": Law("m * x + n * x", "(m + n) * x"),
        "x + 0 = x": Law("x + 0 * y", "x"),
    },
    "subtract": {
        "x − y = x + (−1)·y": Law("x - y", "x + (-1) * y"),
        "x − x = 0": Law("x - x", "0 * x"),
    },
    "negate": {
        "−x = (−1)·x": Law("-x", "(-1) * x"),
        "−(−x) = x": Law("-(-x)", "x"),
    },
    "scale": {
        "a·(b·x) = (a·b)·x": Law("m * (n * x)", "(m * n) * x"),
        "a·(x + y) = a·x + a·y": Law("m * (x + y)", "m * x + m * y"),
        "1·x = x": Law("1 * x", "x"),
        "0·x = 0": Law("0 * x", "y - y"),
    },
    "divide": {"x / c = (1/c)·x": Law("x / n", "(1 / n) * x")},
    "join": {"join(x, y) = x + y where the sites agree": Law("join(x, y)", "x + y")},
    "sum": {
        "sum([x]) = x": Law("sum([x])", "x"),
        "sum([x, y]) = x + y": Law("sum([x, y])", "x + y"),
    },
    "mean": {
        "mean([x]) = x": Law("mean([x])", "x"),
        "mean([x, x]) = x": Law("mean([x, x])", "x"),
        "mean([x, y]) = (x + y) / 2": Law("mean([x, y])", "(x + y) / 2"),
    },
    "linear": {
        "linear([x, y], weights=[m, n]) = (m·x + n·y) / (m + n)": Law(
            "linear([x, y], weights=[m * m, n * n])", "(m * m * x + n * n * y) / (m * m + n * n)"
        ),
        "linear([x, y], weights=[m, n], normalize=false) = m·x + n·y": Law(
            "linear([x, y], weights=[m, n], normalize=false)", "m * x + n * y"
        ),
    },
    "task_arithmetic": {
        "task_arithmetic([x, y]) = x + y": Law("task_arithmetic([x, y])", "x + y"),
        "task_arithmetic([x, y], weights=[m, n], scale=2) = 2·m·x + 2·n·y": Law(
            "task_arithmetic([x, y], weights=[m, n], scale=2)", "2 * m * x + 2 * n * y"
        ),
    },
    "lerp": {
        "lerp(x, y, t=0) = x": Law("lerp(x, y, t=0)", "x"),
        "lerp(x, y, t=1) = y": Law("lerp(x, y, t=1)", "y"),
        "lerp(x, y, n) = lerp(y, x, 1 − n)": Law("lerp(x, y, n)", "lerp(y, x, 1 - n)"),
    },
    "parameter_add": {
        "x ⊕ y = y ⊕ x": Law("x ⊕ y", "y ⊕ x", "like"),
        "(x ⊕ y) ⊕ z = x ⊕ (y ⊕ z)": Law("(x ⊕ y) ⊕ z", "x ⊕ (y ⊕ z)", "like"),
    },
    "parameter_subtract": {"x ⊖ y = x ⊕ (⊖y)": Law("x ⊖ y", "x ⊕ (⊖y)", "like")},
    "parameter_negate": {
        "⊖(⊖x) = x": Law("⊖(⊖x)", "x", "like"),
        "⊖(x ⊕ y) = (⊖x) ⊕ (⊖y)": Law("⊖(x ⊕ y)", "(⊖x) ⊕ (⊖y)", "like"),
    },
    "parameter_scale": {
        "λ ⊗ (μ ⊗ x) = (λμ) ⊗ x": Law("m ⊗ (n ⊗ x)", "(m * n) ⊗ x", "like"),
        "λ ⊗ (x ⊕ y) = λ ⊗ x ⊕ λ ⊗ y": Law("m ⊗ (x ⊕ y)", "m ⊗ x ⊕ m ⊗ y", "like"),
        "1 ⊗ x = x": Law("1 ⊗ x", "x", "like"),
    },
    "peft_linear": {
        "peft_linear([x, y], weights=[1, 1]) = x ⊕ y": Law(
            "peft_linear([x, y], weights=[1, 1])", "x ⊕ y", "like"
        ),
    },
    "magnitude_prune": {
        "magnitude_prune([x, y], density=1) = x + y": numbers_alone(
            "magnitude_prune([x, y], density=1)", "x + y"
        ),
        "magnitude_prune([x, y], density=d) = magnitude_prune([y, x], density=d)": Law(
            "magnitude_prune([x, y], density=0.3)", "magnitude_prune([y, x], density=0.3)"
        ),
    },
    "dare": {
        "dare([x, y], density=1) = x + y": numbers_alone("dare([x, y], density=1)", "x + y"),
        "dare([x, y], density=d, seed=s) = dare([y, x], density=d, seed=s)": Law(
            "dare([x, y], density=0.3, seed=7)", "dare([y, x], density=0.3, seed=7)"
        ),
    },
    "della": {
        "della([x, y], density=1) = x + y": numbers_alone("della([x, y], density=1)", "x + y"),
    },
    "breadcrumbs": {
        "breadcrumbs([x, y], density=1) = x + y": numbers_alone(
            "breadcrumbs([x, y], density=1)", "x + y"
        ),
        "breadcrumbs([x, y], density=d, gamma=0) = magnitude_prune([x, y], density=d)": SAME_BAND,
    },
    "ties": {
        "ties([x], density=1) = x": numbers_alone("ties([x], density=1)", "x"),
        "ties([x, x], density=1) = x": numbers_alone("ties([x, x], density=1)", "x"),
        "ties([x, y], density=d) = ties([y, x], density=d)": Law(
            "ties([x, y], density=0.4)", "ties([y, x], density=0.4)"
        ),
        "ties([2·x, 2·y], density=d) = 2·ties([x, y], density=d)": numbers_alone(
            "ties([2 * x, 2 * y], density=0.4)", "2 * ties([x, y], density=0.4)"
        ),
    },
    "dare_ties": {
        "dare_ties([x, y], density=1) = ties([x, y], density=1)": numbers_alone(
            "dare_ties([x, y], density=1)", "ties([x, y], density=1)"
        ),
    },
    "della_ties": {
        "della_ties([x, y], density=1) = ties([x, y], density=1)": numbers_alone(
            "della_ties([x, y], density=1)", "ties([x, y], density=1)"
        ),
    },
    "breadcrumbs_ties": {
        "breadcrumbs_ties([x, y], density=1) = ties([x, y], density=1)": numbers_alone(
            "breadcrumbs_ties([x, y], density=1)", "ties([x, y], density=1)"
        ),
        "breadcrumbs_ties([x, y], density=d, gamma=0) = ties([x, y], density=d)": numbers_alone(
            "breadcrumbs_ties([x, y], density=0.4, gamma=0)", "ties([x, y], density=0.4)"
        ),
    },
    "sce": {
        "sce([x]) = x": numbers_alone("sce([x])", "x"),
        "sce([x, y], density=d) = sce([y, x], density=d)": Law(
            "sce([x, y], density=0.4)", "sce([y, x], density=0.4)"
        ),
    },
    "nearswap": {
        "nearswap(x, y, t=0) = x": numbers_alone("nearswap(x, y, t=0)", "x"),
        "nearswap(x, x, t=1) = x": numbers_alone("nearswap(x, x, t=1)", "x"),
    },
    "ram": {
        "ram([x], threshold=0) = x": numbers_alone("ram([x], threshold=0)", "x"),
        "ram([x, x], threshold=0) = x": numbers_alone("ram([x, x], threshold=0)", "x"),
        "ram([x, y]) = ram([y, x])": Law("ram([x, y])", "ram([y, x])"),
    },
    "ramplus_tl": {
        "ramplus_tl([x], threshold=0) = x": numbers_alone("ramplus_tl([x], threshold=0)", "x"),
        "ramplus_tl([x, y], r=0) = ram([x, y])": numbers_alone(
            "ramplus_tl([x, y], r=0)", "ram([x, y])"
        ),
    },
    "arcee_fusion": {"arcee_fusion(x, x) = x": numbers_alone("arcee_fusion(x, x)", "x")},
    "slerp": {
        "slerp(x, y, t=0) = x": numbers_alone("slerp(x, y, t=0)", "x"),
        "slerp(x, y, t=1) = y": numbers_alone("slerp(x, y, t=1)", "y"),
        "slerp(x, x, t=n) = x": numbers_alone("slerp(x, x, t=n)", "x"),
    },
    "nuslerp": {
        "nuslerp(x, y, weights=[1, 0]) = x": numbers_alone("nuslerp(x, y, weights=[1, 0])", "x"),
        "nuslerp(x, y, weights=[0, 1]) = y": numbers_alone("nuslerp(x, y, weights=[0, 1])", "y"),
        "nuslerp(x, x, weights=[m, n], along=rows) = x": numbers_alone(
            "nuslerp(x, x, weights=[m * m, n * n], along=rows)", "x"
        ),
    },
    "multislerp": {
        "multislerp([x]) = x": numbers_alone("multislerp([x])", "x"),
        "multislerp([x, y]) = multislerp([y, x])": Law("multislerp([x, y])", "multislerp([y, x])"),
    },
    "karcher": {
        "karcher([x]) = x": numbers_alone("karcher([x])", "x"),
        "karcher([x, x]) = x": numbers_alone("karcher([x, x])", "x"),
        "karcher([x, y]) = karcher([y, x])": Law("karcher([x, y])", "karcher([y, x])"),
    },
    "model_stock": {
        "model_stock([x]) = x": numbers_alone("model_stock([x])", "x"),
        "model_stock([x, x]) = x": numbers_alone("model_stock([x, x])", "x", "leaf"),
        "model_stock([x, x], along=rows) = x": numbers_alone(
            "model_stock([x, x], along=rows)", "x", "leaf"
        ),
    },
    "knots": {
        "knots([x]) = x": numbers_alone("knots([x])", "x"),
        "knots([x, x]) = x": numbers_alone("knots([x, x])", "x"),
    },
    "core_merge": {
        "core_merge([x]) = x": numbers_alone("core_merge([x])", "x"),
        "core_merge([x, x]) = x": numbers_alone("core_merge([x, x])", "x"),
    },
    "tsv": {
        "tsv([x]) = x": numbers_alone("tsv([x])", "x"),
        "tsv([x, y]) = tsv([y, x])": Law("tsv([x, y])", "tsv([y, x])"),
    },
    "iso_c": {
        "iso_c([x, y]) = iso_c([y, x])": Law("iso_c([x, y])", "iso_c([y, x])"),
        "iso_c([x, x]) = 2·iso_c([x]) on matrices": numbers_alone(
            "iso_c([x, x])", "2 * iso_c([x])", "leaf"
        ),
    },
    "iso_cts": {
        "iso_cts([x, y], common=1) = iso_c([x, y])": numbers_alone(
            "iso_cts([x, y], common=1)", "iso_c([x, y])", "leaf"
        ),
    },
    "extract_subtract": {
        "extract_subtract(x, y, by=0) = x": numbers_alone("extract_subtract(x, y, by=0)", "x"),
        "extract_subtract(x, x, by=n) = x": numbers_alone("extract_subtract(x, x, by=n)", "x"),
    },
    "lora_lego": {
        "lora_lego([x], units=2) = x of rank 2": numbers_alone(
            "lora_lego([x], units=2)", "x", "leaf"
        ),
    },
    "wudi": {
        "wudi([x]) = x": numbers_alone("wudi([x])", "x"),
        "wudi([x, x]) = x": numbers_alone("wudi([x, x])", "x"),
        "wudi([x, y]) = wudi([y, x])": Law("wudi([x, y])", "wudi([y, x])"),
    },
    "svc": {
        "svc(x, [x]) = x": numbers_alone("svc(x, [x])", "x"),
        "svc(x + x, [x, x]) = x": numbers_alone("svc(x + x, [x, x])", "x"),
        "svc(x + y, [x, y]) = svc(x + y, [y, x])": Law("svc(x + y, [x, y])", "svc(x + y, [y, x])"),
        "svc(x / 2, [x, y], alpha=1/2) = svc(x, [x, y])": numbers_alone(
            "svc(x / 2, [x, y], alpha=1 / 2)", "svc(x, [x, y])"
        ),
    },
    "compress": {
        "compress(x, rank=k) = x where rank(x) ≤ k": Law("compress(x, rank=3)", "x", "like"),
    },
    "pad": {
        "pad(x, rank=rank of x) = x": Law("pad(x, rank=2)", "x", "leaf"),
        "pad(pad(x, k), m) = pad(x, m)": Law(
            "pad(pad(x, rank=3), rank=5)", "pad(x, rank=5)", "leaf"
        ),
    },
    "rescale": {"rescale(x, like=x) = x": Law("rescale(x, like=x)", "x")},
}

# Laws that no record states and the normal form promises all the same.
FURTHER = {
    "twice": Law("x + x", "2 * x"),
    "taken away again": Law("x + y - y", "x"),
    "brackets": Law("x - (y - z)", "x - y + z"),
    "division twice": Law("x / 4 / n", "x / (4 * n)"),
    "selection is linear": Law("(m * x - y)[layers 0..1]", "m * x[layers 0..1] - y[layers 0..1]"),
    "selection twice": Law("x[layers 0..1][layers 1..2]", "x[layers 1]"),
    "selection of all": Law("x[layers 0..9]", "x"),
    "join of parts": Law("join(x[layers 0], y[layers 1], x[layers 1..2])", "join(x, y[layers 1])"),
    "join with nothing": Law("join(x, 0 * y[layers 1])", "x"),
    "schedule of one number": Law("steps([n, n]) * x", "n * x"),
    "schedule by parts": Law("steps([m, n]) * x", "join(m * x[layers 0..1], n * x[layers 2])"),
    "twice, by parameters": Law("x ⊕ x", "2 ⊗ x", "like"),
    "nothing, by parameters": Law("x ⊕ 0 ⊗ y", "x", "like"),
    "rescaled back": Law("rescale(rescale(x, like=y), like=x)", "x"),
}
LORA_ALONE = "peft|pad|rescale|compress|layers [12]|knots|core_m|tsv|iso_c|extract|lego|wudi|svc"
