"""Stored forms: what the tensors of a site in a file are, where the algebra computes in others.

One record each, in `STORED_FORMS`. All of them are read as a LoRA that does the same, exactly: at a
rank that is the product of the ranks of what they are made of, and where that would be more than
the module has inputs or outputs, at that number, one of the factors the identity.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pemlang.dataclass import dataclass
from pemlang.modules.record import SiteBuilder
from pemlang.modules.sites import SiteShape, lora_shape

if TYPE_CHECKING:
    from pemlang.kernels.builder import Value
    from pemlang.kernels.step import Shape

Axes = tuple[tuple[str, str], ...]
"""Tensors by key, with a letter for each axis."""

Sizes = Mapping[str, int]
"""The size of each axis, by its letter."""


class FactorPair(NamedTuple):
    """A matrix B·A by its factors, (out, r) and (r, in); of a convolution its kernel is part of
    the inputs."""

    b: Value
    a: Value


class StoredForm(ABC):
    """What a site's tensors are.

    Attributes:
        name: of the method, `loha`; its forms may be several.
        title: as a reader writes it.
        formula: Δ / s by its tensors.
        rank_title: its rank as a LoRA, in words.
        axes: the tensors by key, with a letter for each axis: o and c are outputs and inputs, h and
            w a kernel, r the rank that α is divided by; axes of one letter are of one size, and `1`
            is of size one.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    formula: str
    rank_title: str = "r"
    axes: Axes

    @property
    def keys(self) -> tuple[str, ...]:
        """What its tensors are called, in order."""
        return tuple(key for key, _ in self.axes)

    @property
    def by_row(self) -> tuple[bool, ...]:
        """See Parametrisation; none of a form in which outputs lie otherwise."""
        rows = tuple(letters.startswith("o") for _, letters in self.axes)
        apart = any("o" in letters[1:] for _, letters in self.axes)
        return () if apart else rows

    def sizes(self, shapes: Sequence[Shape]) -> Sizes | None:
        """The sizes of the axes by the shapes of the tensors; None where these do not fit."""
        sizes = {"1": 1}
        for (_, letters), shape in zip(self.axes, shapes, strict=True):
            if len(letters) != len(shape):
                return None
            if any(sizes.setdefault(x, n) != n for x, n in zip(letters, shape, strict=True)):
                return None
        return sizes

    def read(self, shapes: Sequence[Shape]) -> StoredSite | None:
        """What a site of it is that has tensors of some shapes; None where these do not fit."""
        sizes = self.sizes(shapes)
        if sizes is None or not all(n for x, n in sizes.items() if x != "r"):
            return None
        out, inner = self.outputs(sizes), self.inputs(sizes)
        full = min(out, math.prod(inner))
        rank = max(1, min(self.rank(sizes), full))
        shape = lora_shape((rank, *inner), (out, rank, *[1] * (len(inner) - 1)))
        if shape is None:
            return None
        return StoredSite(self, shape, rank, sizes.get("r"), self.rank(sizes) > full)

    def outputs(self, sizes: Sizes) -> int:
        """How many outputs the module has."""
        return sizes["o"]

    def inputs(self, sizes: Sizes) -> Shape:
        """How many inputs it has, and its kernel."""
        return (sizes["c"], *(sizes[x] for x in "hw" if x in sizes))

    @abstractmethod
    def rank(self, sizes: Sizes) -> int:
        """The rank of the LoRA."""

    @abstractmethod
    def factors(
        self, builder: SiteBuilder, stored: Mapping[str, Value], site: StoredSite
    ) -> tuple[Value, Value]:
        """A and B, from the tensors by key in the precision that all is computed in."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredForm) and other.keys == self.keys

    def __hash__(self) -> int:
        return hash(self.keys)


@dataclass(frozen=True)
class StoredSite:
    """What a site is whose tensors are of a stored form.

    Attributes:
        form: the form.
        shape, rank: of the LoRA that it is read as.
        trained_rank: the rank that α is divided by, where the tensors say it.
        whole: whether one of the factors is Δ itself.
    """

    form: StoredForm
    shape: SiteShape
    rank: int
    trained_rank: int | None
    whole: bool

    @property
    def title(self) -> str:
        """Of the form."""
        return self.form.title

    def loaded(self, builder: SiteBuilder, stored: Sequence[Value], work: str) -> tuple[Value, ...]:
        """A and B, from the tensors as they are stored; see Parametrisation."""
        if self.trained_rank == 0:
            return tuple(builder.const(0.0, work, shape) for shape in self.shapes)
        named = zip(self.form.keys, stored, strict=True)
        return self.form.factors(builder, {key: builder.cast(x, work) for key, x in named}, self)

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        """Those of A and B."""
        return (self.rank, *self.shape.a), (self.shape.b[0], self.rank, *self.shape.b[1:])

    def of_whole(self, builder: SiteBuilder, delta: Value) -> tuple[Value, Value]:
        """A and B of Δ, a matrix: one of them is Δ, and the other the identity."""
        (a, b), (rows, columns) = self.shapes, delta.shape
        if rows <= columns:
            return builder.einsum("oc->oc", (delta,), a), builder.identity(b, delta.dtype)
        return builder.identity(a, delta.dtype), builder.einsum("oc->oc", (delta,), b)


@dataclass(frozen=True)
class StoredVector:
    """What a site of one tensor is whose numbers count times a scale.

    Attributes:
        title: as a reader writes it.
        scale: what Δ is times the numbers.
    """

    title: str
    scale: float

    def loaded(self, builder: SiteBuilder, stored: Sequence[Value], work: str) -> tuple[Value, ...]:
        """See Parametrisation."""
        return (builder.scale(builder.cast(stored[0], work), self.scale),)


class AdaLora(StoredForm):
    """Zhang et al. 2023, *AdaLoRA*: singular values of their own, of which training prunes some."""

    name = "adalora"
    title = "AdaLoRA"
    formula = "B·diag(E)·A"
    rank_title = "what is left of r"
    axes = (("lora_E", "r1"), ("lora_A", "rc"), ("lora_B", "or"))

    def rank(self, sizes: Sizes) -> int:
        """What is left of it; a module may have none."""
        return sizes["r"]

    def factors(
        self, builder: SiteBuilder, stored: Mapping[str, Value], site: StoredSite
    ) -> tuple[Value, Value]:
        """E goes into A."""
        e, a, b = (stored[key] for key in self.keys)
        diagonal = builder.einsum("re,rc->rc", (e, a), a.shape)
        return _factors(builder, FactorPair(b, diagonal), site)


class Tucker(StoredForm):
    """LoCon of LyCORIS with `use_tucker`: a convolution in three factors."""

    name = "locon"
    title = "LoCon, in Tucker form"
    formula = "up·mid·down"
    axes = (("lora_down", "rc11"), ("lora_mid", "rrhw"), ("lora_up", "or11"))

    def rank(self, sizes: Sizes) -> int:
        """r."""
        return sizes["r"]

    def factors(
        self, builder: SiteBuilder, stored: Mapping[str, Value], site: StoredSite
    ) -> tuple[Value, Value]:
        """The kernel goes into A."""
        down, mid, up = (stored[key] for key in self.keys)
        rank, rows = up.shape[1], up.shape[0]
        down = builder.einsum("rcxy->rc", (down,), down.shape[:2])
        up = builder.einsum("orxy->or", (up,), (rows, rank))
        return _factors(builder, FactorPair(up, _with_kernel(builder, mid, down)), site)


class LoHa(StoredForm):
    """Hyeon-Woo et al. 2022, *FedPara*: the product of two LoRAs, entry by entry. Its rank is the
    product of theirs: the rows of one A times those of the other, each with each."""

    name = "loha"
    title = "LoHa"
    formula = "(w1_a·w1_b) ∘ (w2_a·w2_b)"
    rank_title = "r²"
    axes: Axes = (
        ("hada_w1_a", "or"),
        ("hada_w1_b", "rc"),
        ("hada_w2_a", "or"),
        ("hada_w2_b", "rc"),
    )

    def rank(self, sizes: Sizes) -> int:
        """r²."""
        return sizes["r"] ** 2

    def matrices(
        self, builder: SiteBuilder, stored: Mapping[str, Value]
    ) -> tuple[FactorPair, FactorPair]:
        """The two LoRAs."""
        b1, a1, b2, a2 = (stored[key] for key in self.keys)
        return FactorPair(b1, a1), FactorPair(b2, a2)

    def factors(
        self, builder: SiteBuilder, stored: Mapping[str, Value], site: StoredSite
    ) -> tuple[Value, Value]:
        """The products of rows of A, and of columns of B."""
        first, second = self.matrices(builder, stored)
        if site.whole:
            parts = _product(builder, first), _product(builder, second)
            return site.of_whole(builder, builder.einsum("oc,oc->oc", parts, parts[0].shape))
        a, b = site.shapes
        return (
            builder.einsum("ic,jc->ijc", (first.a, second.a), a),
            builder.einsum("oi,oj->oij", (first.b, second.b), b),
        )


class LoHaOfKernel(LoHa):
    """The same of a convolution whose kernel is a factor of its own (`use_effective_conv2d` in
    PEFT, `use_tucker` in LyCORIS)."""

    title = "LoHa of a kernel"
    formula = "(w1_aᵀ·t1·w1_b) ∘ (w2_aᵀ·t2·w2_b)"
    axes = (
        ("hada_w1_a", "ro"), ("hada_w1_b", "rc"), ("hada_t1", "rrhw"),
        ("hada_w2_a", "ro"), ("hada_w2_b", "rc"), ("hada_t2", "rrhw"),
    )  # fmt: skip

    def matrices(
        self, builder: SiteBuilder, stored: Mapping[str, Value]
    ) -> tuple[FactorPair, FactorPair]:
        """The two LoRAs; what goes in is flat."""
        b1, a1, t1, b2, a2, t2 = (stored[key] for key in self.keys)
        return (
            FactorPair(_turned(builder, b1), _with_kernel(builder, t1, a1)),
            FactorPair(_turned(builder, b2), _with_kernel(builder, t2, a2)),
        )


class LoKr(StoredForm):
    """Yeh et al. 2024, *LyCORIS*: a Kronecker product w1 ⊗ w2, either of them whole or in factors.
    Its rank is the product of theirs."""

    name = "lokr"
    title = "LoKr"
    rank_title = "rank of w1 × rank of w2"

    def __init__(self, first: Axes, second: Axes) -> None:
        """Take the tensors of w1 and of w2, with their axes: (l, m) and (k, n)."""
        self.axes = (*first, *second)
        self._names = tuple(tuple(key for key, _ in part) for part in (first, second))
        products = ("·".join(x.removeprefix("lokr_") for x in names) for names in self._names)
        self.formula = " ⊗ ".join(f"({x})" if "·" in x else x for x in products)

    def outputs(self, sizes: Sizes) -> int:
        """See StoredForm."""
        return sizes["l"] * sizes["k"]

    def inputs(self, sizes: Sizes) -> Shape:
        """See StoredForm."""
        return (sizes["m"] * sizes["n"], *(sizes[x] for x in "hw" if x in sizes))

    def rank(self, sizes: Sizes) -> int:
        """See StoredForm; that of what is whole is the number of its rows, or of its columns."""
        kernel = math.prod(sizes.get(x, 1) for x in "hw")
        parts = ((sizes["l"], sizes["m"]), (sizes["k"], sizes["n"] * kernel))
        ranks = [
            min(size) if len(names) == 1 else sizes["r"]
            for names, size in zip(self._names, parts, strict=True)
        ]
        return math.prod(ranks)

    def factors(
        self, builder: SiteBuilder, stored: Mapping[str, Value], site: StoredSite
    ) -> tuple[Value, Value]:
        """The Kronecker products of A and A, and of B and B."""
        first, second = (
            self._matrix(builder, [stored[key] for key in names]) for names in self._names
        )
        a, b = site.shapes
        if site.whole:
            parts = _product(builder, first), _product(builder, second)
            columns = parts[0].shape[1] * parts[1].shape[1]
            delta = builder.einsum("lm,kn->lkmn", parts, (site.shape.b[0], columns))
            return site.of_whole(builder, delta)
        return (
            builder.einsum("rm,sn->rsmn", (first.a, second.a), a),
            builder.einsum("lr,ks->lkrs", (first.b, second.b), b),
        )

    def _matrix(self, builder: SiteBuilder, values: Sequence[Value]) -> FactorPair:
        """w1 or w2 by its factors, its kernel among what goes in."""
        if len(values) == 3:
            b, kernel, a = values
            return FactorPair(_turned(builder, b), _with_kernel(builder, kernel, a))
        if len(values) == 2:
            return FactorPair(*values)
        [whole] = values
        rows, columns = whole.shape[0], math.prod(whole.shape[1:])
        if len(whole.shape) > 2:
            whole = builder.einsum("knhw->knhw", (whole,), (rows, columns))
        if rows <= columns:
            return FactorPair(builder.identity((rows, rows), whole.dtype), whole)
        return FactorPair(whole, builder.identity((columns, columns), whole.dtype))


class Transposed(StoredForm):
    """A LoRA whose factors are the transposes of A and B: MLX computes x·a·b."""

    name = "transposed"
    title = "the transposes of its factors"
    formula = "(lora_a·lora_b)ᵀ"
    axes = (("lora_a", "cr"), ("lora_b", "ro"))

    def read(self, shapes: Sequence[Shape]) -> StoredSite | None:
        """See StoredForm; a rank above the number of inputs or outputs stays."""
        sizes = self.sizes(shapes)
        if sizes is None or not all(sizes.values()):
            return None
        rank = sizes["r"]
        shape = lora_shape((rank, sizes["c"]), (sizes["o"], rank))
        return None if shape is None else StoredSite(self, shape, rank, rank, False)

    def rank(self, sizes: Sizes) -> int:
        """r."""
        return sizes["r"]

    def factors(
        self, builder: SiteBuilder, stored: Mapping[str, Value], site: StoredSite
    ) -> tuple[Value, Value]:
        """Each turned."""
        a, b = (stored[key] for key in self.keys)
        return _turned(builder, a), _turned(builder, b)


class TokenEmbedding(Transposed):
    """The LoRA of llama.cpp's embedding, whose A alone is the transpose: a row of it is a token."""

    title = "the transpose of A"
    formula = "(token_embd.lora_a·token_embd.lora_bᵀ)ᵀ"
    axes = (("token_embd.lora_a", "cr"), ("token_embd.lora_b", "or"))

    def factors(
        self, builder: SiteBuilder, stored: Mapping[str, Value], site: StoredSite
    ) -> tuple[Value, Value]:
        """A turned."""
        a, b = (stored[key] for key in self.keys)
        return _turned(builder, a), b


TRANSPOSED, TOKEN_EMBEDDING = Transposed(), TokenEmbedding()

_FIRST: tuple[Axes, ...] = (
    (("lokr_w1", "lm"),),
    (("lokr_w1_a", "lr"), ("lokr_w1_b", "rm")),
)
_SECOND: tuple[Axes, ...] = (
    (("lokr_w2", "kn"),),
    (("lokr_w2", "knhw"),),
    (("lokr_w2_a", "kr"), ("lokr_w2_b", "rn")),
    (("lokr_w2_a", "rk"), ("lokr_t2", "rrhw"), ("lokr_w2_b", "rn")),
)

STORED_FORMS: tuple[StoredForm, ...] = (
    AdaLora(),
    LoHa(),
    LoHaOfKernel(),
    *(LoKr(first, second) for first in _FIRST for second in _SECOND),
    Tucker(),
)
"""All of them. Those of the same tensors differ in how many axes these have."""


def forms_of(keys: Iterable[str]) -> list[StoredForm]:
    """The forms whose tensors have some names."""
    wanted = set(keys)
    return [form for form in STORED_FORMS if set(form.keys) == wanted]


def _product(builder: SiteBuilder, matrix: FactorPair) -> Value:
    """B·A."""
    shape = (matrix.b.shape[0], matrix.a.shape[1])
    return builder.einsum("or,rc->oc", (matrix.b, matrix.a), shape)


def _turned(builder: SiteBuilder, x: Value) -> Value:
    """xᵀ."""
    return builder.einsum("ro->or", (x,), x.shape[::-1])


def _with_kernel(builder: SiteBuilder, kernel: Value, a: Value) -> Value:
    """Σⱼ kernel[i, j, h, w]·a[j, c], what goes in flat: (r, c·h·w)."""
    rank, columns = kernel.shape[0], math.prod((a.shape[1], *kernel.shape[2:]))
    return builder.einsum("ijhw,jc->ichw", (kernel, a), (rank, columns))


def _factors(builder: SiteBuilder, matrix: FactorPair, site: StoredSite) -> tuple[Value, Value]:
    """A and B of a matrix in the shapes of the site."""
    if site.whole:
        return site.of_whole(builder, _product(builder, matrix))
    a, b = site.shapes
    return builder.einsum("rc->rc", (matrix.a,), a), builder.einsum("or->or", (matrix.b,), b)
