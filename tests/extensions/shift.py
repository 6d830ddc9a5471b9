"""A parametrisation of two tensors: a module's outputs are scaled and shifted, γ ∘ y + β. Adapters
add by γ − 1 and by β; Δ is the two of them, one after the other."""

from __future__ import annotations

import numpy as np

from pemlang.modules import Parametrisation, SiteValues, register


class Shift(Parametrisation):
    """γ and β, of (out,)."""

    name = "shift"
    title = "scale and shift"
    factors = ("gamma", "beta")
    bases = (1.0, 0.0)

    def shapes(self, site, rank):
        """Those of the outputs."""
        return site.a, site.a

    def loaded(self, builder, stored, work):
        """γ − 1 and β."""
        gamma, beta = (builder.cast(x, "F64") for x in stored)
        return builder.plus(gamma, -1.0), beta

    def total(self, builder, parts, scale):
        """Each summed for itself."""
        sums = []
        for index in range(2):
            total = None
            for number, part in parts:
                x = part.values[index]
                total = builder.fma(x, number, total) if total else builder.scale(x, number)
            sums.append(total)
        return SiteValues(self, tuple(sums))

    def zeros(self, builder, site, rank, scale):
        """γ = 1 and β = 0."""
        return SiteValues(self, tuple(builder.const(0.0, "F64", site.a) for _ in range(2)))

    def delta(self, tensors, scale):
        """γ − 1, and then β."""
        return np.concatenate([x.astype("f8") for x in tensors])

    def orientations(self, site, tensor):
        """No tensor of a model holds it: β needs a bias, and a module may have none."""
        return ()

    def baked(self, builder, weight, part, site, turned):
        """Never asked for: it has no place in a model."""
        raise AssertionError

    def norm(self, tensors, scale):
        """From both."""
        return float(np.linalg.norm(self.delta(tensors, scale)))

    def inner(self, left, right, scales):
        """From both."""
        return float(self.delta(left, 1.0) @ self.delta(right, 1.0))


register(Shift())
