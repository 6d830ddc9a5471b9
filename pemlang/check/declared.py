"""What `adapter … with …` and `model … with …` may say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pemlang.check.options import unknown_option
from pemlang.check.scope import resolve_names
from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.adapter import Adapter, ModulePart, PartsOf
from pemlang.formats.fused import parts_by_rule
from pemlang.formats.namings import MAX_RULES, UNWRAPPED, NamingRule, by_rule, named
from pemlang.formats.renamed import names_as_in, renamed
from pemlang.graph.leaves import Leaf
from pemlang.ops.use import after, replaced
from pemlang.syntax import tree as t

if TYPE_CHECKING:
    from pemlang.check.elaborate import Elaborator
    from pemlang.check.scope import Scope

OPTIONS = ("names",)
"""The options of a declaration."""


def as_declared(
    elaborator: Elaborator,
    statement: t.AdapterStatement | t.ModelStatement,
    scope: Scope,
    adapter: Adapter,
) -> Adapter:
    """What a declaration says of what is in its files; reports what is wrong with it."""
    seen: set[str] = set()
    for option in statement.options:
        with elaborator.at(option.span):
            if option.name in seen:
                raise Fault("PEM0318", f"`{option.name}` is given twice", "leave one of them out")
            if option.name not in OPTIONS:
                raise unknown_option(option, statement.span.text.split()[0], OPTIONS)
        seen.add(option.name)
        names, parts_of = _names(elaborator, option.value, scope, adapter)
        with elaborator.at(option.value.span):
            adapter = renamed(adapter, names, parts_of)
    if not seen and isinstance(statement, t.AdapterStatement):
        with elaborator.at(statement.path.span):
            _hold_unwrapped(statement, adapter)
    return adapter


def _names(
    elaborator: Elaborator, tree: t.Tree, scope: Scope, adapter: Adapter
) -> tuple[dict[str, str], PartsOf]:
    """What the modules of an adapter are called by `names=`, and the parts of those that it
    splits."""
    resolve_names(tree, scope, elaborator.report)
    modules = adapter.format.modules(adapter)
    if not isinstance(tree, t.Renames):
        value = elaborator.of_kind(tree, scope, "string", "adapter")
        with elaborator.at(tree.span):
            if isinstance(value, str):
                return named(value, modules), {}
            if not isinstance(value, Leaf):
                raise Fault(
                    "PEM0354",
                    f"`{visible(tree.span.text, 40)}` is no adapter in a file",
                    "give the name of one that is declared above",
                )
            return names_as_in(adapter, value.adapter), {}
    with elaborator.at(tree.span):
        if len(tree.rows) > MAX_RULES:
            raise Fault(
                "PEM0362",
                f"names= has {len(tree.rows)} rules",
                f"state at most {MAX_RULES}: `*` stands for any part of a name",
            )
    names: dict[str, str] = {}
    parts_of: dict[str, list[ModulePart]] = {}
    for row in tree.rows:
        rule = NamingRule(elaborator.string(row.old, scope), elaborator.string(row.new, scope))
        left = [module for module in modules if module not in names and module not in parts_of]
        with elaborator.at(row.span):
            if "[" in rule.new:
                parts_of |= parts_by_rule(rule, left)
            else:
                names |= by_rule(rule, left)
    return names, parts_of


def _hold_unwrapped(statement: t.AdapterStatement, adapter: Adapter) -> None:
    """Raise PEM0426 where all modules lie in a `module`, which may be what wrapped the model."""
    sites = list(adapter.layout.shapes)
    if all(site.startswith("module.") for site in sites):
        path = statement.path.span
        raise Fault(
            "PEM0426",
            "all its modules lie in one called `module`, as DistributedDataParallel leaves them: "
            f"{listed(sites)}; on the model by itself PEFT would find none of them",
            replaced(path, [after(path, f' with names="{UNWRAPPED}"')])
            or f'say names="{UNWRAPPED}"',
            ('where the model does have such a module: names={ "module.*": "module.*" }',),
        )
