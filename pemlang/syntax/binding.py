"""How tightly trees bind, and where one may be broken."""

from __future__ import annotations

from pemlang.syntax import tree as t

# How tightly an expression binds, from `if` to `f(…)`.
IF, OR, AND, NOT, COMPARE, SUM, PRODUCT, UNARY, POSTFIX = range(9)


def binds(tree: t.Tree) -> int:
    """How tightly."""
    match tree:
        case t.If():
            return IF
        case t.Logic():
            return {"or": OR, "and": AND, "not": NOT}[tree.word]
        case t.Compare():
            return COMPARE
        case t.Chain():
            return PRODUCT if tree.operators[0].symbol in ("*", "/", "⊗") else SUM
        case t.Unary():
            return UNARY
    return POSTFIX


def joins(tree: t.Tree) -> bool:
    """Whether a tree is operands with operators between them."""
    return isinstance(tree, t.Chain | t.Compare | t.Logic) and len(operands(tree)) > 1


def operands(tree: t.Tree) -> tuple[t.Tree, ...]:
    """The operands of a tree that is joined."""
    if isinstance(tree, t.Compare):
        return (tree.left, tree.right)
    return tree.operands if isinstance(tree, t.Chain | t.Logic) else ()


def words(tree: t.Tree) -> list[str]:
    """What stands between them."""
    match tree:
        case t.Chain():
            return [operator.symbol for operator in tree.operators]
        case t.Compare():
            return [tree.operator.symbol]
        case t.Logic():
            return [tree.word] * (len(tree.operands) - 1)
    return []


def ends_lines(tree: t.Tree) -> bool:
    """Whether a tree may end a line outside its own brackets."""
    if isinstance(tree, t.Logic) and tree.word == "not":
        return binds(tree.operands[0]) >= NOT and ends_lines(tree.operands[0])
    return joins(tree) or isinstance(tree, t.If)


def hugs(tree: t.Tree, within: bool = False) -> bool:
    """Whether the last operand has brackets to break in, and none before it has any."""
    *others, last = operands(tree)
    if not all(map(_is_simple, others)):
        return False
    if binds(last) <= binds(tree):  # a sum to be broken: only where there is one factor
        return len(others) == 1 and not within
    return opens(last, binds(tree) + 1)


def opens(tree: t.Tree, need: int = POSTFIX) -> bool:
    """Whether a tree can be broken inside brackets that stand at its end."""
    if binds(tree) < need:
        return True
    match tree:
        case t.Call():
            return bool(tree.args)
        case t.ListOf():
            return bool(tree.items)
        case t.Selection():
            return isinstance(tree.selector, t.Globs) or opens(tree.operand)
        case t.Index():
            return opens(tree.operand)
        case t.Unary():
            return opens(tree.operand, UNARY)
    return isinstance(tree, t.Per | t.ForEach) or (joins(tree) and hugs(tree, within=True))


def _is_simple(tree: t.Tree) -> bool:
    lists = isinstance(tree, t.Call | t.ListOf | t.Per | t.Globs | t.If | t.ForEach)
    return not lists and all(map(_is_simple, tree.children()))


def is_short(tree: t.Tree) -> bool:
    """Whether a selector has but names and numbers."""
    return not any(any(child.children()) for child in tree.children())
