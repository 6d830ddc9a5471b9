"""Dense: W′ − W itself, of a whole fine-tune."""

from __future__ import annotations

from pemlang.modules.record import register
from pemlang.modules.vectors import OneTensor


class DenseChange(OneTensor):
    """The difference of two models' weights at a site."""

    name = "dense"
    title = "dense"
    acts = "adds a whole matrix to W"
    matrices = True
    suffix = ""


DENSE = register(DenseChange())
