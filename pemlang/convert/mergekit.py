"""A configuration of mergekit as a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pemlang.convert.configuration import (
    Configuration,
    MergedSlice,
    ModelInput,
    ModelReference,
    read_configuration,
)
from pemlang.convert.marked import Marked, read_yaml
from pemlang.convert.merge import MergekitMethod, ModelMerge
from pemlang.convert.methods import METHODS, SETTINGS
from pemlang.convert.vocabulary import matched
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Diagnostic, Fault, nearest, visible
from pemlang.disk import is_dir, is_file, open_plain
from pemlang.inputs.hub import HUB_NAME, SCHEME
from pemlang.inputs.identities import seen_from
from pemlang.ops import FUNCTIONS
from pemlang.source import Source, Span
from pemlang.syntax.format import formatted
from pemlang.syntax.written import is_name, name_like, quoted
from pemlang.tensorfiles.jsons import parse_json
from pemlang.version import LANGUAGE

DTYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
_SAYS_LITTLE = re.compile(r"\d+(x\d+)?[bm]|v?\d+|hf|fp16|bf16|model|models", re.IGNORECASE)
"""Words in names of models that say their size, version or format."""
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers")


@dataclass(frozen=True)
class Converted:
    """A recipe, and what was left out of it."""

    text: str
    warnings: Sequence[Diagnostic]


def converted(source: Source, folder: Path, name: str) -> Converted:
    """The recipe that a configuration of mergekit is.

    Args:
        source: the configuration; its paths start at the working directory, as mergekit has it.
        folder: where the recipe will be.
        name: what its output is called, where the configuration does not say.

    Raises:
        Fault: PEM0830 PyYAML is not installed, PEM0831 it is not YAML, PEM0832 it is no
            configuration of mergekit, PEM0833 what it says has no counterpart here.
    """
    configuration = read_configuration(read_yaml(source))
    return _Draft(configuration, folder).converted(source, name)


class _Draft:
    """A recipe while it is written."""

    def __init__(self, configuration: Configuration, folder: Path) -> None:
        self._configuration, self._folder = configuration, folder
        self._method = _method_of(configuration)
        self._taken: set[str] = {*FUNCTIONS, "merged"}
        self._names: dict[ModelReference, str] = {}
        self._declared: list[str] = []
        self._lets: dict[str, str] = {}
        self._remarks: list[str] = []
        self._warnings: list[Diagnostic] = []

    def converted(self, source: Source, name: str) -> Converted:
        for part in self._configuration.slices:
            self._hold_settings(part)
        self._declare()
        tokenizer = self._tokenizer()
        whole = self._whole()
        parts = [self._expression(part, whole) for part in self._configuration.slices]
        value = parts[0] if len(parts) == 1 else f"stack({', '.join(parts)})"
        given = self._configuration.value("name")
        output = name if given is None else given.text("name", "merged")
        options = ", ".join(self._options(tokenizer))
        lines = [
            f"# From {visible(source.name)}, a configuration of mergekit: {self._method.name}."
        ]
        lines += [f"language {LANGUAGE}", "", *self._declared, ""]
        lines += [f"let {let} = {text}" for text, let in self._lets.items()]
        lines += [f"# {remark}" for remark in dict.fromkeys(self._remarks)]
        lines += [f"let merged = {value}", ""]
        folder = quoted(f"out/{_file_name(output)}")
        lines += [f"save merged to {folder}" + f" with {options}" * bool(options), ""]
        return Converted(formatted(Source("a converted recipe", "\n".join(lines))), self._warnings)

    # --- what merges add to it -------------------------------------------------------------

    def let(self, name: str, text: str) -> str:
        """See RecipeDraft."""
        if text not in self._lets:
            self._lets[text] = self._named(name)
        return self._lets[text]

    def remark(self, text: str) -> None:
        """See RecipeDraft."""
        self._remarks.append(text)

    def warn(self, message: str, span: Span, help: str) -> None:
        """See RecipeDraft."""
        self._warnings.append(Diagnostic("PEM0834", "warning", message, span, help))

    # --- declarations ----------------------------------------------------------------------

    def _named(self, text: str) -> str:
        name = name_like(text, self._taken)
        self._taken.add(name)
        return name

    def _declare(self) -> None:
        """Declare all models, and the adapters that are added to them."""
        apart = self._method.base in ("origin", "optional")
        bases = {part.base for part in self._configuration.slices if part.base is not None}
        adapted = []
        for model in self._configuration.models:
            plain = ModelReference(model.path)
            self._declare_model(plain, plain in bases and apart, bases if apart else ())
            if model.lora is not None:
                adapted.append(model)
        for model in adapted:
            assert model.lora is not None
            adapter = self._named(_short(model.lora))
            self._declared.append(f"adapter {adapter} = {quoted(self._place(model.lora))}")
            under = self._names[ModelReference(model.path)]
            self._names[model] = self.let(f"{under}_{adapter}", f"{under} + {adapter}")

    def _declare_model(
        self, model: ModelReference, is_base: bool, bases: Iterable[ModelReference]
    ) -> None:
        if model in self._names:
            return
        self._names[model] = name = self._named(_short(model.path))
        place = quoted(self._place(model.path))
        if is_base:
            self._declared.insert(0, f"base {name} = {place}")
            return
        known = [self._names[base] for base in bases if base in self._names]
        on = f" on {known[0]}" if len(known) == 1 else ""
        self._declared.append(f"model {name}{on} = {place}")

    def _place(self, path: str) -> str:
        """What the recipe calls a path of the configuration."""
        place, _, revision = path.partition("@")
        if is_dir(Path(path)):
            return seen_from(self._folder, path, Path.cwd())
        if HUB_NAME.fullmatch(place) and not is_dir(Path(place)):
            return SCHEME + path
        return seen_from(self._folder, place if revision else path, Path.cwd())

    # --- the value -------------------------------------------------------------------------

    def _whole(self) -> bool:
        """Whether whole models are merged, and no layers of them."""
        slices = self._configuration.slices
        if not self._configuration.by_layers:
            return True
        if len(slices) > 1 or len({each.layers for each in slices[0].inputs}) > 1:
            return False
        [first, *_] = slices[0].inputs
        assert first.layers is not None
        if first.layers[0] != 0:
            return False
        count = _layers_in(first.model.path)
        if count is None:
            self.warn(
                f"layers 0 to {first.layers[1]} are taken to be all layers of these models",
                first.span,
                "if they have more, select these of each: x[layers …]",
            )
        return count is None or count == first.layers[1] + 1

    def _expression(self, part: MergedSlice, whole: bool) -> str:
        """The merge of a slice."""
        points: dict[str, ModelInput | None] = {
            self._text(each.model, None if whole else each): each for each in part.inputs
        }
        base = self._base(part, whole, points)
        if self._method.models not in (None, len(points) - (self._method.base == "first")):
            raise _wrong(
                "PEM0832",
                f"`{self._method.name}` does not take {len(points)} models",
                part.span,
                f"give it {self._method.models}"
                + " beside the base_model" * (self._method.base in ("first", "optional")),
            )
        return self._method.write(ModelMerge(self._method, part, base, points, self))

    def _text(self, model: ModelReference, each: ModelInput | None) -> str:
        if each is None or each.layers is None:
            return self._names[model]
        first, last = each.layers
        layers = str(first) if first == last else f"{first}..{last}"
        return f"{self._names[model]}[layers {layers}]"

    def _base(
        self, part: MergedSlice, whole: bool, points: dict[str, ModelInput | None]
    ) -> str | None:
        """What differences are taken to; `points` become the others, or have it first."""
        role, name = self._method.base, self._method.name
        if part.base is None:
            if role in ("origin", "first"):
                message, help = f"`{name}` needs a base_model", "add it: base_model: …"
                raise _wrong("PEM0832", message, self._place_of_method, help)
            return None
        source = next((each for each in part.inputs if each.model == part.base), None)
        text = self._text(part.base, None if whole else source)
        listed = points.pop(text, None)
        if self._configuration.by_layers and listed is None and role != "member":
            help = "add it to the sources, with its layer_range"
            raise _wrong("PEM0832", "the base_model is no source of this slice", part.span, help)
        if role in ("origin", "optional"):
            return text
        if listed is not None or not self._configuration.by_layers:
            others = dict(points)
            points.clear()
            points.update({text: listed, **others})
        return None

    @property
    def _place_of_method(self) -> Span:
        return self._configuration.keys["merge_method"].value.span

    def _hold_settings(self, part: MergedSlice) -> None:
        """Tell what the method does not look at; raise Fault PEM0832 for what none does."""
        own = {*self._method.of_all, *self._method.of_each}
        levels = [each.parameters for each in part.inputs] + [*part.levels]
        for index, level in enumerate(levels):
            for name, entry in level.items():
                if name not in SETTINGS:
                    close = nearest(name, own)
                    help = f"did you mean `{close}`?" if close else "leave it out"
                    message = f"no method of mergekit has a setting `{visible(name, 40)}`"
                    raise _wrong("PEM0832", message, entry.key, help)
                elsewhere = index < len(part.inputs) and name in self._method.of_all
                if name == "int8_mask":
                    self.warn("int8_mask is left out: it saves memory", entry.key, "nothing to do")
                elif name not in own or elsewhere:
                    where = " of one model" if elsewhere else ""
                    self.warn(
                        f"{name} is left out: `{self._method.name}` does not look at that{where}",
                        entry.key,
                        "write it below the parameters at the top, if it is meant"
                        if elsewhere
                        else "nothing to do: mergekit passes over it too",
                    )

    # --- what is saved ---------------------------------------------------------------------

    def _options(self, tokenizer: str | None) -> Iterable[str]:
        """The options of `save`."""
        for key in ("out_dtype", "dtype"):
            value = self._configuration.value(key)
            if value is not None:
                word = value.text(key, "bfloat16").removeprefix("torch.")
                if word not in DTYPES:
                    help = f"write one of {', '.join(DTYPES)}"
                    raise value.wrong("PEM0832", f"{visible(word, 40)} is no dtype", help)
                yield f"dtype={DTYPES[word]}"
                break
        template = self._configuration.value("chat_template")
        if template is not None:
            raise template.wrong(
                "PEM0833",
                "an output has the chat template of its tokenizer, and no other",
                "leave chat_template out, and choose by tokenizer_source whose it has",
            )
        if tokenizer is not None:
            yield f"tokenizer={tokenizer}"

    def _tokenizer(self) -> str | None:
        """Whose tokenizer an output has; None for that of the model it is made from. The models
        are brought to its tokens where theirs are others."""
        value, source = self._tokenizer_source()
        if value is None or source is None:
            return None
        [first, *_] = merged = self._configuration.models
        model = first if source in ("base", "union") else ModelReference(source)
        if model not in self._names:
            self._declare_model(model, False, ())
        before = {each: self._names[each] for each in merged}
        whose = None if source == "union" else model
        based = any(part.base is not None for part in self._configuration.slices)
        try:
            after = matched(before, whose, self.let, based)
        except Fault as fault:
            raise value.wrong(fault.code, fault.message, fault.help) from None
        self._names |= after
        return None if model == first or after != before else self._names[model]

    def _tokenizer_source(self) -> tuple[Marked | None, str | None]:
        """What a configuration says of the tokens of its output."""
        value = self._configuration.value("tokenizer_source")
        given = self._configuration.value("tokenizer")
        if given is not None:
            entries = given.entries("tokenizer")
            for key, entry in entries.items():
                if key != "source":
                    message = f"{visible(key, 40)} of a tokenizer does not carry over"
                    raise _wrong("PEM0833", message, entry.key, "leave it out")
            value = entries["source"].value if "source" in entries else None
        if value is None:
            return None, None
        return value, value.text("tokenizer_source", "base")


def _method_of(configuration: Configuration) -> MergekitMethod:
    """The record of the method; raises Fault."""
    name = configuration.method
    place = configuration.keys["merge_method"].value
    if name not in METHODS:
        close = nearest(name, METHODS)
        help = f"did you mean `{close}`?" if close else f"methods are {', '.join(METHODS)}"
        raise place.wrong("PEM0832", f"there is no method `{visible(name, 40)}`", help)
    return METHODS[name]


def _wrong(code: str, message: str, span: Span, help: str) -> Fault:
    return Fault(code, message, help, place=span)


def _short(path: str) -> str:
    """The words of a model's name that tell it from others."""
    last = path.partition("@")[0].rstrip("/").rpartition("/")[2]
    words = re.split(r"[^\w]+|_", last)
    kept = [word for word in words if word and not _SAYS_LITTLE.fullmatch(word)]
    name = "_".join(kept or words).lower()
    return name if is_name(name) else f"{name}_model"


def _file_name(name: str) -> str:
    """A name for a folder."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "merged"


def _layers_in(path: str) -> int | None:
    """How many layers a model on disk has; None where its config does not say."""
    config = Path(path) / "config.json"
    if not is_file(config):
        return None
    try:
        with open_plain(config) as file:
            stored = parse_json(file.read(1 << 20))
    except (OSError, ValueError):
        return None
    inner = stored.get("text_config", stored) if isinstance(stored, Mapping) else None
    if not isinstance(inner, Mapping):
        return None
    counts = (inner.get(key) for key in _LAYER_KEYS)
    return next((count for count in counts if isinstance(count, int)), None)
