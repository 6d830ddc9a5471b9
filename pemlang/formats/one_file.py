"""Adapters of image models in one safetensors file: what their formats have in common.

A site has `SITE` with the end of A, and with that of B; often `SITE.alpha`, one number, and then
Δ = (α/r)·B·A. Without it α is r. How a site is named, and which ends a writer gives, tell the
formats apart: a record each in the files beside this one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, told_of, visible
from pemlang.disk import is_file, lfs_pointer
from pemlang.formats.adapter import Adapter, ByIdentity, Layout, alpha_of, kinds_text
from pemlang.formats.image_names import names_in
from pemlang.formats.one_file_whole import (
    WHOLE_ENDS,
    end_of_whole,
    module_in_file,
    whole_sites,
)
from pemlang.formats.readers import OutputReader
from pemlang.formats.record import (
    AdapterSpec,
    Detection,
    Format,
    OutputLayout,
    OutputTensor,
    names_format,
)
from pemlang.formats.signature import (
    Malformed,
    headers_restored,
    headers_signature,
    lengthened,
    shortened,
)
from pemlang.formats.stored_sites import stored_site
from pemlang.formats.uniform import equal_alphas, equal_ranks, float32
from pemlang.modules import PARAMETRISATIONS, Shapes, SiteShape
from pemlang.modules.sites import lora_shape
from pemlang.modules.stored import STORED_FORMS
from pemlang.tensorfiles.safetensors import (
    SUFFIX,
    Header,
    TensorEntry,
    float_dtypes,
    read_header,
    read_metadata,
    read_numbers,
)

_LYCORIS = ("hada_", "lokr_")

ENDS = {
    ".lora_down.weight": "a", ".lora_up.weight": "b",
    ".lora_A.weight": "a", ".lora_B.weight": "b",
    ".lora_A.default.weight": "a", ".lora_B.default.weight": "b",
    ".lora.down.weight": "a", ".lora.up.weight": "b",
    ".lora_linear_layer.down.weight": "a", ".lora_linear_layer.up.weight": "b",
    "_lora.down.weight": "a", "_lora.up.weight": "b",
    ".alpha": "alpha", ".lora_mid.weight": "lora_mid",
    **WHOLE_ENDS,
    **{f".{key}": key for form in STORED_FORMS for key in form.keys if key.startswith(_LYCORIS)},
}  # fmt: skip
"""What keys end in, as the writers of these files have it, and the factor that each is, or the
tensor of a stored form."""


@dataclass(frozen=True)
class RefusedKeys:
    """Keys that are known for what they are, and refused.

    Attributes:
        ends: what they end in, a pattern.
        shown: the same for a reader.
        what: what they belong to.
        instead: what to do, where there is more to say than to take a plain LoRA.
        code: of the message.
    """

    ends: str
    shown: str
    what: str
    instead: str = "give an adapter that is a plain LoRA"
    code: str = "PEM0421"


REFUSED = (
    RefusedKeys(
        r"\.(dora_scale|lora_magnitude_vector)", "dora_scale, lora_magnitude_vector",
        "DoRA, which rescales the base's weights",
        "make a LoRA of what it does: in ComfyUI, LoraLoader on the checkpoint, ModelMergeSubtract "
        "of the plain one, LoraSave; or train it without DoRA",
        "PEM0369",
    ),
    RefusedKeys(
        r"\.(set_weight|reshape_weight)", "set_weight, reshape_weight",
        "a weight in the place of the base's", "leave such modules out where it is extracted",
    ),
    RefusedKeys(
        r"\.(lora_[AB]|lora_up|lora_down)(\.default)?\.bias", "lora_B.bias",
        "a bias beside the factors", "train it without lora_bias",
    ),
    RefusedKeys(
        r"\.(oft_blocks|oft_diag|a[12]\.weight|b[12]\.weight|on_input)",
        "oft_blocks, a1.weight, on_input", "another method than LoRA",
    ),
)  # fmt: skip

_END = re.compile(f"(?:{'|'.join(map(re.escape, sorted(ENDS, key=len, reverse=True)))})$")
_OF_MID = {"a": "lora_down", "b": "lora_up"}  # beside a lora_mid
_KEPT = ("ss_", "modelspec.")
_OF_THE_INPUT = {"ss_network_dim", "ss_network_alpha", "ss_network_args", "modelspec.hash_sha256"}
"""What a file says of itself that is not true of one made from it; the rest of what starts as
`_KEPT` is kept where all inputs say the same."""

_PLAIN = "networks.lora"
"""What the module starts with that trains a LoRA in sd-scripts. What `lycoris.kohya` has trained is
another method, and an output a LoRA."""


@dataclass(frozen=True, eq=False)
class OneFileLayout(Layout):
    """Attributes:
    alphas: site to the key of its α, where the file has one.
    """

    alphas: Mapping[str, str] = field(default_factory=dict)


class OneFile(Format):
    """A format of adapters that are one safetensors file.

    Attributes:
        written: the ends of the two factors in an output.
        says_alpha: whether an output says α of each site; else α is the rank.
        example: a name of a site.
        written_by: what writes and reads such files.
    """

    one_file = True
    suffix = SUFFIX
    texts = ()
    weights = ""
    written: ClassVar[tuple[str, str]] = (".lora_A.weight", ".lora_B.weight")
    says_alpha: ClassVar[bool] = False
    example: ClassVar[str]
    written_by: ClassVar[str]

    def stored_ranks(
        self, shapes: Shapes, ranks: Mapping[str, int], reader: OutputReader | None
    ) -> Mapping[str, int]:
        """See Format; unlike ranks are what α in such files is for."""
        return ranks if reader is None else equal_ranks(shapes, ranks, reader)

    def stored_scales(
        self,
        shapes: Shapes,
        ranks: Mapping[str, int],
        scales: Mapping[str, float],
        reader: OutputReader | None,
    ) -> Mapping[str, float]:
        """See Format. One α for all sites: diffusers takes the most common one for those of a UNet
        whose α differs, and where none is said every reader takes the rank."""
        if not self.says_alpha:
            return dict.fromkeys(ranks, 1.0)
        return equal_alphas(ranks, scales)

    @property
    def shown_starts(self) -> tuple[str, ...]:
        """The starts without those that differ from another in a number alone."""
        return tuple(start for start in self.starts if not re.search(r"[0-9]", start))

    @property
    def naming(self) -> str:
        """See Format."""
        return self.name

    def detect(self, place: Path) -> Detection:
        """See Format."""
        if place.suffix != SUFFIX or not is_file(place) or lfs_pointer(place) is not None:
            return Detection(False, False, "")
        try:
            entries = read_header(place).entries
        except Fault:  # told where it is read as what it may be
            return Detection(False, False, "")
        fits = any(
            name.startswith(self.starts) and (_END.search(name) or _refused(name))
            for name in entries
        )
        return Detection(fits, fits, f"no names of {self.name}")

    def read(self, place: Path) -> Adapter:
        """See Format.

        Raises:
            Fault: what read_header raises; PEM0416 a tensor that is no part of a LoRA, PEM0417
                factors that do not fit each other, PEM0419 a dtype that is not a float, PEM0421
                another method, PEM0425 an α that readers take differently.
        """
        return self.of_header(place, read_header(place))

    def of_header(self, place: Path, header: Header) -> Adapter:
        """See Format."""
        layout = self._layout(place, header.entries)
        keys = list(layout.alphas.values())
        numbers = read_numbers(place, header, keys)
        alphas = {site: numbers[key] for site, key in layout.alphas.items()}
        return self._assembled(place, header, layout, alphas, self.configs(place))

    def configs(self, place: Path) -> Mapping[str, object]:
        """What a file says of its scales elsewhere than in its tensors, by component."""
        return {}

    def scales_of_configs(
        self, place: Path, configs: Mapping[str, object], ranks: Mapping[str, int]
    ) -> Mapping[str, float]:
        """The scales of sites that `configs` has something of."""
        return {}

    def _assembled(
        self,
        place: Path,
        header: Header,
        layout: OneFileLayout,
        alphas: Mapping[str, float],
        configs: Mapping[str, object],
    ) -> Adapter:
        for site, alpha in alphas.items():
            if not math.isfinite(alpha) or alpha == 0:
                raise Fault(
                    "PEM0425",
                    f"{visible(place)}: the α of {visible(site)} is {alpha:g}",
                    "write another, or take `.alpha` out of the file, which makes it the rank",
                    ("sd-scripts takes an α of 0 for the rank, ComfyUI for 0",) * (alpha == 0),
                )
        stated = self.scales_of_configs(place, configs, layout.ranks)
        if stated and alphas:
            raise Fault(
                "PEM0425",
                f"{visible(place)} says its scales twice: by {visible(next(iter(alphas)))}.alpha "
                "and in its metadata",
                "take one of them out of the file",
            )
        scales = {
            site: stated.get(site, _scale(alphas.get(site), layout, site)) for site in layout.ranks
        }
        fields = {"alphas": shortened(alphas), "configs": dict(configs)}
        return Adapter(self, place.parent, place, header, layout, scales, fields=fields)

    def _layout(self, place: Path, entries: Mapping[str, TensorEntry]) -> OneFileLayout:
        with told_of(place):
            return _read_layout(self, ByIdentity(entries))

    def role(self, key: str) -> tuple[str, str]:
        """The site that a key is of, and the factor that it is; raises PEM0416, PEM0421."""
        end = _END.search(key)
        if end is not None and key.startswith(self.starts) and end.start():
            return self.site(key[: end.start()], end[0]), ENDS[end[0]]
        refused = _refused(key)
        if refused is not None:
            what = f"{visible(key)} belongs to {refused.what}"
            raise Fault(refused.code, what, refused.instead)
        raise Fault(
            "PEM0416",
            f"{visible(key)} is no tensor of a LoRA with {self.name}'s names",
            f"keep tensors such as {self.example}{self.written[0]} alone",
        )

    def site(self, named: str, end: str) -> str:
        """The site of what a key says before its end."""
        return named

    def files(self, adapter: Adapter) -> list[Path]:
        """See Format."""
        return [adapter.weights]

    def readable(self, place: Path) -> list[Path]:
        """See Format."""
        return [place]

    def signature(self, adapter: Adapter) -> dict[str, object]:
        """See Format: `tensors`; `alphas`, which a header does not say; `configs`."""
        fields = {name: value for name, value in adapter.fields.items() if value}
        return {**fields, **headers_signature(adapter)}

    def restored(self, signature: Mapping[str, object], directory: Path, weights: str) -> Adapter:
        """See Format; `directory` is the file."""
        header, _ = headers_restored(signature)
        alphas, configs = signature.get("alphas", {}), signature.get("configs", {})
        if not isinstance(alphas, dict) or not isinstance(configs, dict):
            raise Malformed("its alphas are none")
        if not all(isinstance(fields, dict) for fields in configs.values()):
            raise Malformed("what it says of its scales is no config")
        place = directory.with_name(weights)
        layout = self._layout(place, header.entries)
        alphas = lengthened(alphas)
        if alphas.keys() != layout.alphas.keys():
            raise Malformed("its alphas are not those of its tensors")
        numbers = {site: alpha for site, alpha in alphas.items() if isinstance(alpha, float)}
        if len(numbers) < len(alphas):
            raise Malformed("an alpha is no number")
        return self._assembled(place, header, layout, numbers, configs)

    def hold(self, shapes: Shapes, whole_modules: Sequence[str]) -> None:
        """See Format; raises PEM0421."""
        if not all(PARAMETRISATIONS[kind].matrices for kind in shapes.kinds):
            raise Fault(
                "PEM0421",
                f"this is {kinds_text(shapes.kinds)}: a file of {self.name} holds LoRA and whole "
                "differences",
                "save the sites of these kinds alone",
            )

    def layout(self, spec: AdapterSpec) -> OutputLayout:
        """See Format."""
        naming = names_format(spec.inputs[0]).naming if spec.inputs else self.naming
        modules = {site: module_in_file(site, shape) for site, shape in spec.shapes.items()}
        names = names_in(dict.fromkeys(modules.values()), naming, self.naming)
        tensors = [
            OutputTensor(names[module] + end, spec.dtype, shape, site, factor, around)
            for site, module in modules.items()
            for end, (factor, shape, around) in zip(
                self.written if spec.ranks[site] else (end_of_whole(spec, site),),
                spec.factors(site),
                strict=True,
            )
        ]
        alphas = _alphas(spec, names) if self.says_alpha else []
        return OutputLayout({spec.name: [*alphas, *tensors]}, {}, metadata=self.metadata(spec))

    def metadata(self, spec: AdapterSpec) -> dict[str, str]:
        """What an output says of itself, beside what every output does."""
        # By a lock an output is planned without the files that it is made from.
        told = [
            read_metadata(x.weights) if x.format.one_file and is_file(x.weights) else {}
            for x in spec.inputs
        ]
        return {
            key: value
            for key, value in (told[0] if told else {}).items()
            if key.startswith(_KEPT) and key not in _OF_THE_INPUT and _is_text(key, value)
            if key != "ss_network_module" or value.startswith(_PLAIN)
            if all(other.get(key) == value for other in told)
        }


def _is_text(*values: object) -> bool:
    """Whether some values are texts that a file can hold: JSON can say half a character."""
    try:
        return all(isinstance(value, str) and value.encode() is not None for value in values)
    except UnicodeEncodeError:
        return False


def _refused(key: str) -> RefusedKeys | None:
    """What a key is known as that is refused; None of any other key."""
    return next((kind for kind in REFUSED if re.search(kind.ends, key)), None)


@lru_cache(maxsize=64)
def _read_layout(record: OneFile, key: ByIdentity) -> OneFileLayout:
    """What the names and shapes in a header say; raises PEM0416, PEM0417, PEM0419, PEM0421."""
    entries: Mapping[str, TensorEntry] = key.it  # type: ignore[assignment]
    parts: dict[str, dict[str, str]] = {}
    for name in entries:
        site, factor = record.role(name)
        first = parts.setdefault(site, {}).setdefault(factor, name)
        if first != name:
            raise Fault(
                "PEM0417",
                f"{visible(name)} and {visible(first)} are one factor of one site",
                "take one of them out of the file",
            )
    shapes, ranks, factors, alphas, stored = {}, {}, {}, {}, {}
    for site, keys in parts.items():
        if "alpha" in keys:
            alphas[site] = keys.pop("alpha")
        whole = {end: keys.pop(end) for end in WHOLE_ENDS.values() if end in keys}
        if whole and not keys:
            _hold_no_alpha(site, alphas)
        elif keys.keys() <= {"a", "b"}:
            factors[site], shapes[site], ranks[site] = _lora_site(site, keys, entries)
        else:
            named = {_OF_MID.get(factor, factor): key for factor, key in keys.items()}
            here = stored[site] = stored_site(site, named, entries)
            factors[site] = tuple(named[key] for key in here.form.keys)
            shapes[site], ranks[site] = here.shape, here.rank
        beside = whole_sites(site, whole, entries, shapes.get(site), parts)
        for at, (shape, name) in beside.items():
            shapes[at], factors[at] = shape, (name,)
    dtypes = float_dtypes([name for names in factors.values() for name in names], entries)
    ranks = dict(sorted(ranks.items()))
    return OneFileLayout(Shapes(shapes), ranks, factors, {}, dtypes, alphas=alphas, stored=stored)


def _hold_no_alpha(site: str, alphas: Mapping[str, str]) -> None:
    """Raise PEM0425 for an α beside whole differences alone."""
    if site in alphas:
        raise Fault(
            "PEM0425",
            f"{visible(site)} has an α, and no factors that it scales",
            "take `.alpha` out of the file: a whole difference has none",
        )


def _lora_site(
    site: str, keys: Mapping[str, str], entries: Mapping[str, TensorEntry]
) -> tuple[tuple[str, ...], SiteShape, int]:
    """The keys of the factors of a LoRA, its shape and its rank; raises PEM0417."""
    if "a" not in keys or "b" not in keys:
        raise Fault(
            "PEM0417",
            f"site {visible(site)} has {listed(sorted(keys.values())) or 'an alpha'} alone",
            "save the file again: a site has two factors, A and B",
        )
    a, b = (entries[keys[factor]].shape for factor in "ab")
    shape = lora_shape(a, b) if all((*a, *b)) else None
    if shape is None:
        raise Fault(
            "PEM0417",
            f"the factors of site {visible(site)} do not fit: A is {list(a)}, B is {list(b)}",
            "save the file again: A is (rank, in), B is (out, rank)",
        )
    return (keys["a"], keys["b"]), shape, a[0]


def _scale(alpha: float | None, layout: Layout, site: str) -> float:
    """α/r; 1 without α, and of a LoKr that has no r."""
    rank = layout.trained_rank(site, 0)
    return 1.0 if alpha is None or not rank else alpha / rank


def _alphas(spec: AdapterSpec, names: Mapping[str, str]) -> list[OutputTensor]:
    """α of each site, as wide as the factors where those are float64, so that these are aligned."""
    dtype = "F64" if spec.dtype == "F64" else "F32"
    return [
        OutputTensor(f"{names[site]}.alpha", dtype, (), site, "alpha", value=alpha_at(spec, site))
        for site, rank in spec.ranks.items()
        if rank
    ]


def alpha_at(spec: AdapterSpec, site: str) -> float:
    """α of a site of an output, as its file says it."""
    return float32(alpha_of(spec.scales[site], spec.ranks[site]))
