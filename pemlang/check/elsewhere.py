"""What other tools call what is here, and how they write it: PEFT, mergekit, sd-mecha, Python."""

from __future__ import annotations

_RANKED = "call {} without over=factors, and with a rank: rank=16"

FUNCTIONS = {
    "avg": "did you mean `mean`?",
    "average": "call mean([…]), or linear([…], weights=[…]) where the shares differ",
    "n_average": "did you mean `mean`?",
    "soup": "did you mean `mean`?",
    "model_soup": "did you mean `mean`?",
    "ties_sum": "did you mean `ties`?",
    "dropout": "did you mean `dare`?",
    "weighted_average": "did you mean `linear`?",
    "weighted_mean": "did you mean `linear`?",
    "weighted_sum": "write it as a sum, 0.7 * a + 0.3 * b, or call lerp(a, b, t=0.3)",
    "add_difference": "write it as a sum: a + 0.5 * (b - c)",
    "task_vector": "subtract the base from the model: chat - base",
    "zip": "go through several lists at once in a list: [w * x for w, x in zip(weights, xs)]",
    "add": "write it as a sum: a + b",
    "subtract": "write it as a difference: a - b",
    "negate": "write a sign: -a, or ⊖a for the paper's negation",
    "svd": "cut a sum to a rank with compress(a + b, rank=16)",
    "svd_merge": "cut a sum to a rank with compress(a + b, rank=16)",
    "extract_lora": "cut a task vector to a rank with compress(chat - base, rank=16)",
    "cat": "put adapters side by side, exactly, with a + b or with linear(…, normalize=false)",
    "concat": "put adapters side by side, exactly, with a + b or with linear(…, normalize=false)",
    "ties_svd": _RANKED.format("ties"),
    "dare_linear_svd": _RANKED.format("dare_linear"),
    "dare_ties_svd": _RANKED.format("dare_ties"),
    "magnitude_prune_svd": _RANKED.format("magnitude_prune"),
    "merge": "say how: a + b, mean, ties or another that `pem ops` lists; the paper's is imported, "
    "import std.paper (merge)",
    "add_weighted_adapter": "call what its combination_type names: ties, dare_linear, peft_linear; "
    "docs/migrating.md has each",
    "merge_and_unload": "add the adapter to its model: base + a",
    "scale": "write it as a product: 0.5 * a",
    "unlearn": "import it: import std.paper (unlearn)",
    "transfer": "import it: import std.paper (transfer)",
    "detoxify": "import it: import std.paper (detoxify)",
    "passthrough": "select the layers of each and put them together: join(a[layers 0..15], …)",
}
"""What to write instead of a function that another tool has."""

VALUES = {
    "True": "did you mean `true`?",
    "False": "did you mean `false`?",
    "None": "leave out what it stands for: it takes its default",
    "none": "leave out what it stands for: it takes its default",
    "null": "leave out what it stands for: it takes its default",
    "pi": "write the number",
}
"""What to write instead of a value that other languages have."""

SETTINGS = {
    "majority_sign_method": "elect",
    "lambda": "scale",
    "lambda_": "scale",
    "lam": "scale",
    "alpha": "t",
    "max_iter": "rounds",
    "tol": "tolerance",
    "select_topk": "density",
    "top_k": "density",
    "adapter_weights": "weights",
    "svd_rank": "rank",
    "r": "rank",
    "random_seed": "seed",
}
"""The parameters that other tools call by other names."""

WORDS = {
    ("normalize", "false"): "off",
    ("normalize", "true"): "weights",
    ("rescale", "false"): "off",
    ("rescale", "true"): "density",
    ("elect", "majority"): "frequency",
    ("elect", "sum"): "total",
}
"""The words of parameters that other tools give as something else, by parameter."""
