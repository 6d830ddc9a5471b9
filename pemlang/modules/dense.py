"""Dense: W′ − W itself, of a whole fine-tune."""

from __future__ import annotations

from pemlang.modules.lora import LORA
from pemlang.modules.record import register
from pemlang.modules.sites import LORA_LAYERS, SiteShape
from pemlang.modules.vectors import OneTensor


class DenseChange(OneTensor):
    """The difference of two models' weights at a site."""

    name = "dense"
    title = "dense"
    acts = "adds a whole matrix to W"
    matrices = True

    def by_row(self, site: SiteShape) -> tuple[bool, ...]:
        """The whole weight of a module has."""
        return (site.layer in LORA_LAYERS.values(),)


DENSE = register(DenseChange())


def lora_of_weight(shape: SiteShape) -> SiteShape | None:
    """The shape of the LoRA that changes what the whole weight of a module does; None of any other
    site, and of a norm."""
    if shape.kind != DENSE.name or shape.layer not in LORA_LAYERS.values():
        return None
    out, *rest = shape.a
    return SiteShape(LORA.name, shape.layer, tuple(rest), (out, *[1] * (len(rest) - 1)))
