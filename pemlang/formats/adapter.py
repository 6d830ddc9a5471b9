"""An adapter as it is known without a number of its tensors, whatever format its files have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.modules import PARAMETRISATIONS, Parametrisation, Shapes, SiteShape
from pemlang.modules.stored import StoredSite, StoredVector
from pemlang.tensorfiles.digests import file_digest, hold_unchanged
from pemlang.tensorfiles.reference import TensorRef
from pemlang.tensorfiles.safetensors import Header, TensorEntry

if TYPE_CHECKING:
    from pemlang.formats.record import Format

STATISTICS = "statistics.safetensors"
MODEL_CONFIG = "config.json"


@dataclass(frozen=True)
class ModulePart:
    """A part of a module.

    Attributes:
        name: of the module that it is by itself.
        first, end: its outputs among those of the whole: from the first up to the end.
    """

    name: str
    first: int
    end: int

    @property
    def place(self) -> str:
        """Its outputs, as a recipe writes them."""
        return f"[{self.first}:{self.end}]"

    def rows(self, entry: TensorEntry) -> TensorEntry:
        """Its rows of a tensor that has one for each output of the whole."""
        row = (entry.end - entry.start) // entry.shape[0]
        start, end = (entry.start + at * row for at in (self.first, self.end))
        return TensorEntry(entry.dtype, (self.end - self.first, *entry.shape[1:]), start, end)


PartsOf = Mapping[str, Sequence[ModulePart]]
"""The parts of some modules, by their names."""


class ByIdentity:
    """A cache key: the same object, whatever it holds. read_header shares equal headers."""

    __slots__ = ("it",)

    def __init__(self, it: object) -> None:
        self.it = it

    def __hash__(self) -> int:
        return id(self.it)  # stays its own: the key keeps the object alive

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByIdentity) and self.it is other.it


@dataclass(frozen=True, eq=False)
class Layout:
    """What the names and shapes of a file's tensors say.

    Attributes:
        shapes: the sites.
        ranks: the rank at each site that has one, from the tensors.
        factors: site to the keys of its tensors, in the order of the parametrisation's factors.
        heads: keys of whole tensors saved beside the adapter.
        dtypes: the dtypes of the factors.
        copies: which of the heads are weights of the base itself.
        stored: what the tensors of a site are, where they are no factors of its parametrisation.
        of_base: which of the heads are parameters of the base that were trained: biases, and rows.
        rows: which rows of the module's weight a head is, where it is not all of it.
        tied_rows: whether they are those of an output layer too, which the base ties to them.
    """

    shapes: Shapes
    ranks: Mapping[str, int]
    factors: Mapping[str, tuple[str, ...]]
    heads: Mapping[str, TensorEntry]
    dtypes: frozenset[str]
    copies: frozenset[str] = frozenset()
    stored: Mapping[str, StoredSite | StoredVector] = field(default_factory=dict)
    of_base: frozenset[str] = frozenset()
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    tied_rows: bool = False

    def trained_rank(self, site: str, told: int) -> int:
        """The rank by which α is divided at a site; `told` where its tensors do not say."""
        stored = self.stored.get(site)
        if not isinstance(stored, StoredSite):
            return self.ranks[site]
        rank = stored.trained_rank
        return told if rank is None else rank


@dataclass(frozen=True)
class Site:
    """What an adapter holds of one site.

    Attributes:
        parametrisation: what it is.
        shape: with the rank left out.
        rank, scale: r and s of a LoRA; 0 and 1 of what has none.
        tensors: the key, dtype and shape of each of its factors.
        references: where they lie.
        stored: what they are, where they are no factors.
    """

    parametrisation: Parametrisation
    shape: SiteShape
    rank: int
    scale: float
    tensors: tuple[TensorEntry, ...]
    references: tuple[TensorRef, ...]
    stored: StoredSite | StoredVector | None


@dataclass(frozen=True, eq=False)
class Adapter:
    """Everything of an adapter but the numbers in its tensors.

    Attributes:
        format: of its files.
        directory: the folder its files are in.
        weights: the file that holds its tensors.
        header: the places of its tensors.
        layout: its sites and factors.
        scales: s at each site that has one.
        base: the model it belongs to, as its files name it.
        fan_in_fan_out: whether its config says that this model stores its weights transposed, as
            GPT-2 does. Factors have one orientation all the same, and PEFT goes by the module.
        whole_modules: modules that are saved whole, and adapted by nothing.
        variant: what tells its scales from those of its kind, `rsLoRA`; else empty.
        fields: what else its format says of it, for that format and for comparisons.
        statistics: the header of what was collected beside it for data-aware merges, if it was.
        seen: what its files were before they were read, see tensorfiles.digests.identity.
        stored: the same as its files name its modules, where a recipe says what to call them.
        names: what the recipe calls them, by their names in the files.
        parts_of: what the recipe splits others into, by their names in the files.
        model: what the config of its model says that lies beside it, where that may count; see
            gguf_names.model_beside.
    """

    format: Format
    directory: Path
    weights: Path
    header: Header
    layout: Layout
    scales: Mapping[str, float]
    base: str | None = None
    fan_in_fan_out: bool = False
    whole_modules: tuple[str, ...] = ()
    variant: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)
    statistics: Header | None = None
    seen: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)
    stored: Adapter | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    parts_of: PartsOf = field(default_factory=dict)
    model: Mapping[str, object] = field(default_factory=dict)

    @property
    def in_files(self) -> Adapter:
        """Itself, as its files name its modules."""
        return self.stored or self

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """BLAKE3 of each file that is read of it, by its name, its statistics last where it has
        any. They are taken once, of what was read before and is read after.

        Raises:
            Fault: PEM0411 a file that cannot be read, PEM0412 one that is not what was read.
        """
        files = self.files
        files += [] if self.statistics is None else [self.statistics_file]
        digests = {file.name: file_digest(file) for file in files}
        hold_unchanged({file: self.seen[file] for file in files if file in self.seen})
        return digests

    @property
    def files(self) -> list[Path]:
        """The files that are read of it, but for its statistics; its tensors' last."""
        config, own = self.directory / MODEL_CONFIG, self.format.files(self)
        return [config, *own] if self.model and config not in own else own

    @property
    def signature(self) -> dict[str, object]:
        """What a check needs of it: see Format.signature, and `model` beside that."""
        beside = {"model": dict(self.model)} if self.model else {}
        return {**self.format.signature(self), **beside}

    def site(self, name: str) -> Site:
        """What it holds of a site."""
        shape, keys = self.layout.shapes[name], self.layout.factors[name]
        return Site(
            PARAMETRISATIONS[shape.kind],
            shape,
            self.layout.ranks.get(name, 0),
            self.scales.get(name, 1.0),
            tuple(self.header.entries[key] for key in keys),
            tuple(self.reference(key) for key in keys),
            self.layout.stored.get(name),
        )

    def reference(self, key: str) -> TensorRef:
        """Where one of its tensors lies."""
        return self.header.reference(self.weights, key)

    @property
    def place(self) -> Path:
        """Where it is: its folder, or its one file."""
        return self.weights if self.format.one_file else self.directory

    @property
    def tensor_files(self) -> list[Path]:
        """The files that hold its tensors."""
        return [self.weights]

    @property
    def statistics_file(self) -> Path:
        """Where its statistics lie, if they do."""
        return self.directory / STATISTICS

    def statistics_at(self, site: str) -> list[str]:
        """The keys of its statistics of a site, in one order at every site."""
        if self.statistics is None:
            return []
        shape, rank = self.layout.shapes[site], self.layout.ranks.get(site, 0)
        families = PARAMETRISATIONS[shape.kind].statistics(shape, rank).values()
        keys = (f"{site}.{kind}" for family in families for kind in family)
        return [key for key in keys if key in self.statistics.entries]

    def statistic(self, key: str) -> TensorRef:
        """Where one of its statistics lies."""
        assert self.statistics is not None
        return self.statistics.reference(self.statistics_file, key)

    def numbers_at(self, site: str) -> int:
        """How many numbers its factors hold at a site; none where it has no such site."""
        keys = self.layout.factors.get(site, ())
        return sum(math.prod(self.header.entries[key].shape) for key in keys)

    def parameters(self) -> int:
        """How many numbers its factors hold in all."""
        keys = {key for keys in self.layout.factors.values() for key in keys}
        return sum(math.prod(self.header.entries[key].shape) for key in keys)

    @property
    def title(self) -> str:
        """What kinds it is of, `LoRA`, `LoRA, rsLoRA` or `LoRA, stored as LoHa`."""
        stored = sorted({site.title for site in self.layout.stored.values()})
        told = [kinds_text(self.layout.shapes.kinds), self.variant]
        return ", ".join(filter(None, [*told, *(f"stored as {title}" for title in stored)]))


def method_title(method: str) -> str:
    """A method, `ia3+lora`, as a reader writes it."""
    return kinds_text(method.split("+"))


def how_kinds_act(*kinds: Sequence[str]) -> list[str]:
    """What each kind of sites of some adapters does, a line each."""
    records = [PARAMETRISATIONS[name] for name in dict.fromkeys(chain(*kinds))]
    return [f"{record.title} {record.acts}" for record in records]


def kinds_text(kinds: Sequence[str]) -> str:
    """Kinds of sites as a reader writes them, `LoRA and (IA)³`."""
    return " and ".join(x.title for name, x in PARAMETRISATIONS.items() if name in kinds)


def alpha_of(scale: float, rank: int) -> float | int:
    """The α for which α/rank is the scale, to the last bit where there is one."""
    alpha = scale * rank
    for near in (alpha, math.nextafter(alpha, math.inf), math.nextafter(alpha, -math.inf)):
        if near / rank == scale:
            alpha = near
            break
    return int(alpha) if alpha.is_integer() else alpha
