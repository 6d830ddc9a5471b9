"""The operators of the language, one record each.

`FUNCTIONS` maps a function's name to its record, `INFIX` and `PREFIX` a symbol's.
"""

from __future__ import annotations

from pemlang.ops import (
    data,
    exact,
    geometric,
    leaf,
    linear,
    lowrank,
    measures,
    parameters,
    record,
    schedule,
    shaping,
    signs,
    sparse,
)
from pemlang.ops.record import Operator

NODE_KINDS = record.NODE_KINDS
assert leaf.LEAF.op in NODE_KINDS  # importing the modules above makes their nodes known

OPERATORS: tuple[Operator, ...] = (
    *exact.OPERATORS,
    *linear.OPERATORS,
    *sparse.OPERATORS,
    *signs.OPERATORS,
    *geometric.OPERATORS,
    *lowrank.OPERATORS,
    *data.OPERATORS,
    *parameters.OPERATORS,
    *shaping.OPERATORS,
    *schedule.OPERATORS,
    *measures.OPERATORS,
)

FUNCTIONS = {name: op for op in OPERATORS if not op.symbols for name in (op.name, *op.aliases)}
_SYMBOLS = [op for op in OPERATORS if op.symbols]
INFIX = {op.symbols[0]: op for op in _SYMBOLS if len(op.signatures[0].params) == 2}
PREFIX = {op.symbols[0]: op for op in _SYMBOLS if len(op.signatures[0].params) == 1}
