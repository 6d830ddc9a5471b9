"""What `save … with …` may say."""

from __future__ import annotations

from collections.abc import Mapping

from pemlang.check.annotations import dtype_name
from pemlang.check.values import Declared, RecipeValue
from pemlang.diagnostics import Fault, listed, nearest, visible
from pemlang.graph.node import Leaf
from pemlang.syntax import tree as t

OPTIONS = ("rank", "energy", "dtype", "heads")


def unknown_option(option: t.NamedArg) -> Fault:
    """What to say of an option that `save` does not have."""
    close = nearest(option.name, OPTIONS)
    return Fault(
        "PEM0340",
        f"`save` has no option `{visible(option.name, 40)}`",
        f"did you mean `{close}`?" if close else f"give one of {', '.join(OPTIONS)}",
        place=option.name_span,
    )


def option_dtype(tree: t.Tree) -> str:
    """dtype=bf16: the word itself, not a name of the recipe."""
    return dtype_name(tree.name if isinstance(tree, t.Name) and not tree.module else tree.span.text)


def option_heads(value: RecipeValue, text: str, declared: Mapping[Leaf, Declared]) -> Leaf:
    """heads=a: one of the adapters declared in the recipe, that has heads; raises PEM0342."""
    if not isinstance(value, Leaf):
        raise Fault(
            "PEM0342",
            f"`{text}` is not a declared adapter",
            "give the name of an adapter whose heads to keep",
        )
    if not value.adapter.layout.heads:
        holders = [x.name for leaf, x in declared.items() if leaf.adapter.layout.heads]
        raise Fault(
            "PEM0342",
            f"`{text}` has no heads (modules_to_save)",
            f"choose one that has them: {listed(holders)}"
            if holders
            else "leave heads= out: no adapter of the recipe has any, and none are saved",
        )
    return value
