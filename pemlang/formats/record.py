"""A format of adapters' files: how it is told from others, read, written, and kept in a lock.

One record each; the records are in the files beside this one, and known by name in `FORMATS`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, TypeVar

from pemlang.dataclass import dataclass
from pemlang.formats.adapter import STATISTICS, Adapter
from pemlang.formats.gguf_names import MODULES, RenamedSite, Swap
from pemlang.formats.readers import OutputReader
from pemlang.formats.vocabulary import Vocabulary
from pemlang.modules import PARAMETRISATIONS, Shapes
from pemlang.modules.sites import bias_of, module_of_bias
from pemlang.tensorfiles.dtypes import DTYPES, FLOATS
from pemlang.tensorfiles.gguf import Scalar
from pemlang.tensorfiles.safetensors import Header, TensorEntry

AtSite = TypeVar("AtSite")


@dataclass(frozen=True, eq=False)
class Detection:
    """What was seen of a format at a place.

    Attributes:
        fits: whether it holds an adapter of the format.
        whole: whether its tensors are there too.
        saw: what is there, in words, for messages.
    """

    fits: bool
    whole: bool
    saw: str


@dataclass(frozen=True)
class OutputTensor:
    """A tensor of an output.

    Attributes:
        key, dtype, shape: as in the file.
        site: what it belongs to; None for a head.
        factor: the factor it is, such as `a`; for a head its key in the inputs.
        around: what its numbers are stored around.
        value: the number in it, where that is known before anything is computed, or 0 of a whole
            tensor of zeros; such tensors stand before all others in their file.
        turned: whether it is the transpose of the factor.
        swap: the order that its rows have there, where that is another.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    site: str | None
    factor: str
    around: float = 0.0
    value: float | None = None
    turned: bool = False
    swap: Swap | None = None

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * DTYPES[self.dtype].size


@dataclass(frozen=True, eq=False)
class AdapterSpec:
    """An adapter or a model that is to be written, but for the numbers in its tensors.

    Attributes:
        shapes: its sites: those that are written.
        ranks, scales: at each site; 0 and 1 of what has none.
        base, fan_in_fan_out: see Adapter.
        dtype: of its factors.
        dtype_given: whether a recipe says so.
        inputs: what it is made from.
        name: what the output is called: of one that is a file, the file's name.
        heads: adapters whose heads are equal; the first one's are written.
        origin: of a model, the one whose files beside its tensors it has.
        stored: of a model, how each tensor is stored that one of its own is like.
        shard: of a model, the bytes of tensors in one of its files at most; as `origin` when None.
        tokenizer: of a model, the one whose tokenizer it has; `origin` when None.
        vocabulary: of a model, its tokens where they are more than those of `origin`.
        reader: the program that is to load it, where a recipe says so.
    """

    shapes: Shapes
    ranks: Mapping[str, int]
    scales: Mapping[str, float]
    base: str | None
    fan_in_fan_out: bool
    dtype: str
    dtype_given: bool
    inputs: Sequence[Adapter]
    name: str
    heads: Sequence[Adapter]
    origin: Adapter | None = None
    stored: Mapping[str, TensorEntry] = field(default_factory=dict)
    shard: int | None = None
    tokenizer: Adapter | None = None
    vocabulary: Vocabulary | None = None
    reader: OutputReader | None = None

    def with_names(self, names: Mapping[str, RenamedSite]) -> AdapterSpec:
        """The same with other names for its sites."""
        return replace(
            self,
            shapes=Shapes({names[site].name: shape for site, shape in self.shapes.items()}),
            ranks={names[site].name: rank for site, rank in self.ranks.items()},
            scales={names[site].name: scale for site, scale in self.scales.items()},
        )

    def factors(self, site: str) -> list[tuple[str, tuple[int, ...], float]]:
        """The tensors of a site: what each is called, its shape, and what it is stored around."""
        shape = self.shapes[site]
        record = PARAMETRISATIONS[shape.kind]
        shapes = record.shapes(shape, self.ranks[site])
        return list(zip(record.factors, shapes, record.bases, strict=True))


@dataclass(frozen=True, eq=False)
class OutputLayout:
    """The files of an output, but for the numbers in its tensors.

    Attributes:
        files: those of tensors by name, with the tensors in the order they stand there.
        texts: the other files by name.
        copies: files that are those of an input, by name.
        metadata: what the files of tensors say of themselves, beside what all outputs do.
    """

    files: Mapping[str, Sequence[OutputTensor]]
    texts: Mapping[str, str]
    copies: Mapping[str, Path] = field(default_factory=dict)
    metadata: Mapping[str, Scalar] = field(default_factory=dict)

    def with_sites(self, names: Mapping[str, RenamedSite]) -> OutputLayout:
        """The same files, for the sites that have these names there; zeros may be of no site."""
        sites = {renamed.name: site for site, renamed in names.items()}

        def of_site(tensor: OutputTensor) -> OutputTensor:
            if tensor.site is None or tensor.site not in sites:
                return tensor
            site = sites[tensor.site]
            swap = names[site].swap if tensor.factor == "b" else None
            return replace(tensor, site=site, swap=swap)

        files = {name: [of_site(x) for x in tensors] for name, tensors in self.files.items()}
        return replace(self, files=files)

    @property
    def tensors(self) -> list[OutputTensor]:
        """All of them, file by file."""
        return [tensor for tensors in self.files.values() for tensor in tensors]


class Format(ABC):
    """A format of adapters, or of models.

    Attributes:
        name: what recipes and locks call it.
        holds: `adapter` or `model`.
        weights: the file of an output's tensors.
        texts: the other files of an output.
        pickled: what an input may hold instead of `weights`: a file of torch's; else empty.
        library: the package that loads it, as the hub knows it.
        told_of: the fields of an adapter that what else is known of it says too.
        one_file: whether an adapter is one file, and no directory.
        starts: what the names of modules in such a file start with.
        keeps_heads: whether its files hold modules that are saved whole, beside an adapter.
        suffix: what the name of that one file ends in; else empty.
        dtypes: that its factors may have.
    """

    name: ClassVar[str]
    holds: ClassVar[str] = "adapter"
    weights: ClassVar[str]
    texts: ClassVar[tuple[str, ...]]
    pickled: ClassVar[str] = ""
    library: ClassVar[str] = ""
    told_of: ClassVar[frozenset[str]] = frozenset()
    one_file: ClassVar[bool] = False
    starts: ClassVar[tuple[str, ...]] = ()
    keeps_heads: ClassVar[bool] = True
    suffix: ClassVar[str] = ""
    dtypes: ClassVar[tuple[str, ...]] = tuple(FLOATS)

    @abstractmethod
    def detect(self, place: Path) -> Detection:
        """Whether a place holds an adapter of this format: from names, and where they do not tell
        from headers."""

    @abstractmethod
    def read(self, place: Path) -> Adapter:
        """The adapter at a place, from its headers; raises Fault with everything wrong with it."""

    def readable(self, place: Path) -> list[Path]:
        """The files that `read` may read at a place."""
        names = (*self.texts, self.weights, self.pickled, STATISTICS)
        return [place / name for name in names if name]

    @abstractmethod
    def of_header(self, place: Path, header: Header) -> Adapter:
        """As `read`, where the file of tensors is elsewhere, and this is its header."""

    @abstractmethod
    def files(self, adapter: Adapter) -> list[Path]:
        """The files that are read of an adapter, in the order its identity is taken in; its
        tensors' last."""

    @abstractmethod
    def signature(self, adapter: Adapter) -> dict[str, object]:
        """What a check needs of an adapter, as JSON that a reviewer can read."""

    @abstractmethod
    def restored(self, signature: Mapping[str, object], directory: Path, weights: str) -> Adapter:
        """The adapter of a signature, as `read` gives it, but for its tensors' places.

        Args:
            signature: what `signature` gave.
            directory, weights: where it would be, and the name of its tensors' file.

        Raises:
            Malformed: it is no signature.
            Fault: as read.
        """

    def modules(self, adapter: Adapter) -> list[str]:
        """What in an adapter has a name that a recipe may change: its sites, and what else its
        format names so."""
        return list(adapter.layout.shapes.modules)

    def renamed(self, adapter: Adapter, names: Mapping[str, str]) -> Adapter:
        """An adapter with other names for its modules; where they lie in its files stays.

        Args:
            adapter: as its files name it.
            names: the new names of some of its `modules`, in which no two have one.
        """

        def new(by_site: Mapping[str, AtSite]) -> dict[str, AtSite]:
            return dict(sorted((_renamed(site, names), x) for site, x in by_site.items()))

        layout, statistics = adapter.layout, adapter.statistics
        if statistics is not None:
            entries = {_with_site(key, names): x for key, x in statistics.entries.items()}
            statistics = Header(entries, statistics.data_start)
        return replace(
            adapter,
            layout=replace(
                layout,
                shapes=Shapes(new(layout.shapes)),
                ranks=MappingProxyType(new(layout.ranks)),
                factors=new(layout.factors),
                stored=new(layout.stored),
            ),
            scales=MappingProxyType(new(adapter.scales)),
            statistics=statistics,
            stored=adapter,
        )

    def hold_inputs(self, inputs: Sequence[Adapter]) -> None:
        """Raise Fault for adapters that its files cannot hold what is made from; none of zero."""
        return

    def hold(self, shapes: Shapes, whole_modules: Sequence[str]) -> None:
        """Raise Fault for sites that its files cannot hold, beside modules saved whole."""
        return

    @abstractmethod
    def layout(self, spec: AdapterSpec) -> OutputLayout:
        """The files of an adapter that is to be written; raises Fault for what this format cannot
        say."""

    def loading(self, base: str) -> Sequence[str]:
        """Lines of Python that load an output, for its card; `base` says of which model it is."""
        return ()

    @property
    def naming(self) -> str:
        """How sites are named: formats of one naming can hold each other's sites."""
        return MODULES

    def stored_ranks(
        self, shapes: Shapes, ranks: Mapping[str, int], reader: OutputReader | None
    ) -> Mapping[str, int]:
        """The rank that its files have at each site, where a reader is meant or none; rows of zeros
        make up the difference."""
        return ranks

    def stored_scales(
        self,
        shapes: Shapes,
        ranks: Mapping[str, int],
        scales: Mapping[str, float],
        reader: OutputReader | None,
    ) -> Mapping[str, float]:
        """The scale that its files say at each site that has a rank, where B carries the rest; and
        at others what their numbers count times, where that is not 1."""
        return scales

    def needed(self, shapes: Shapes, written: Collection[str]) -> list[str]:
        """The sites that have to be in its files beside those that are written, zero or not."""
        return []

    @property
    def part(self) -> str:
        """What the sites of an output are called."""
        return "site" if self.holds == "adapter" else "tensor"

    @property
    def described_in(self) -> str:
        """The file that says what an adapter belongs to."""
        return (*self.texts, self.weights or "file")[0]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the files that an output always has."""
        return () if self.one_file else (*self.texts, self.weights)

    def writes(self, name: str) -> bool:
        """Whether an output may have a file of some name."""
        return name in self.outputs

    def wrote(self, names: Collection[str]) -> bool:
        """Whether some names are those of an output of this format, and of others beside it."""
        return not self.one_file and set(self.outputs) <= set(names)


def _renamed(site: str, names: Mapping[str, str]) -> str:
    """The new name of a site; that of a bias follows its module."""
    module = module_of_bias(site)
    if site in names or not module:
        return names.get(site, site)
    return bias_of(names.get(module, module))


def _with_site(key: str, names: Mapping[str, str]) -> str:
    """The key of a statistic, SITE.kind, by another name of its site."""
    site, _, kind = key.rpartition(".")
    return f"{_renamed(site, names)}.{kind}"


FORMATS: dict[str, Format] = {}
"""The records by name, in the order in which a place is held to them."""


def register(record: Format) -> Format:
    """Make a format known."""
    FORMATS[record.name] = record
    return record


def formats_of(holds: str) -> list[Format]:
    """The records of adapters, or of models."""
    return [record for record in FORMATS.values() if record.holds == holds]


def default_format(holds: str = "adapter") -> Format:
    """The format that an output has where nothing says which."""
    return formats_of(holds)[0]


def names_format(adapter: Adapter) -> Format:
    """The format whose names the modules of an adapter have: that of its files, but where a recipe
    calls those of one file as another format does."""
    if adapter.names and adapter.format.starts:
        for record in formats_of("adapter"):
            if all(x.startswith(record.starts) for x in adapter.layout.shapes):
                return record
    return adapter.format


def output_format(inputs: Sequence[Adapter], holds: str = "adapter") -> Format:
    """The format of an output: the one whose names its inputs have, where those of its kind share
    one."""
    records = {names_format(x).name: names_format(x) for x in inputs if x.format.holds == holds}
    [*shared] = records.values()
    return shared[0] if len(shared) == 1 else default_format(holds)
