"""The comments that `pem tune --write` leaves above params, and what they say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

MARK = "# pem tune: "
_LINE = re.compile(rf"^\s*{MARK}(\S+) = (.*?) gives (.+)$", re.MULTILINE)


class Remark(NamedTuple):
    """What a value of a param gives: a metric's numbers, by which metric, and in which study."""

    value: str
    gives: str

    def line(self, name: str) -> str:
        """The comment."""
        return f"{MARK}{name} = {self.value} gives {self.gives}"


def remarks_of(text: str) -> Mapping[str, Remark]:
    """What a recipe says of params that were tuned. Whether a param has that value still, it does
    not know."""
    return {match[1]: Remark(match[2], match[3].strip()) for match in _LINE.finditer(text)}
