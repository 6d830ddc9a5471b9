"""The names of one module: those that transformers has given it over time, those that trainers
leave, and those that a recipe states.

Each way of naming is one record. A bake goes by them where a checkpoint has other names than an
adapter; a recipe says one where it declares an adapter, `with names="transformers-5"`, or states
rules of its own, `with names={ "a.*": "b.*" }`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, nearest, visible
from pemlang.formats.peft_names import PREFIX
from pemlang.modules.sites import layer_start

MAX_RULES = 100
MAX_STARS = 8
"""Of one rule that a recipe states."""

MAX_NAME = 512
"""Characters of a name: patterns of configs are matched with names, and time grows with both."""

MAX_SHOWN = 6
"""Rules that help shows."""


@dataclass(frozen=True)
class Naming:
    """A way in which modules are named.

    Attributes:
        seen: where it comes from.
        changes: patterns, each with what stands in their place, one after the other.
        word: by which a recipe says it; empty where only a bake looks for it.
        shown_by: a pattern that some module of an adapter has to have, for it to be plain that
            these changes are those of its model; where none has, another model may be meant.
        is_broad: whether its changes alone are too common to take them for those of its model.
    """

    seen: str
    changes: tuple[tuple[str, str], ...] = ()
    word: str = ""
    shown_by: str = ""
    is_broad: bool = False

    def of(self, tensor: str) -> str:
        """What a tensor is called by it."""
        for pattern, new in self.changes:
            tensor = re.sub(pattern, new, tensor, count=1)
        return tensor

    def changed(self, modules: Iterable[str]) -> dict[str, str]:
        """What those of some modules are called that it calls otherwise."""
        touched = [module for module in modules if self._any.search(f"{module}.")]
        new = {module: self.of(f"{module}.").removesuffix(".") for module in touched}
        return {module: name for module, name in new.items() if name != module}

    @cached_property
    def _any(self) -> re.Pattern[str]:
        """What finds a module that some of its changes are about."""
        return re.compile("|".join(f"(?:{pattern})" for pattern, _ in self.changes))

    def is_plain(self, modules: Iterable[str]) -> bool:
        """Whether some modules show that it is theirs."""
        return any(re.search(self.shown_by, module) for module in modules)


_PARTS = "vision_tower|vision_model|image_tower|video_tower|audio_tower|multi_modal_projector"
# What CLIP and SigLIP have in the `vision_model` that transformers 5 no longer names.
_IN_TOWER = r"(encoder\.layers|embeddings\.\w+_embedding|pre_layrnorm|post_layernorm|head)"
_LLAVA_BEFORE = (
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
    (rf"^model\.({_PARTS})\.", r"\1."),
)
_LLAVA_MOVED = (
    (r"^language_model\.model\.", "model.language_model."),
    (r"^language_model\.lm_head\.", "lm_head."),
    (rf"^({_PARTS})\.", r"model.\1."),
)
NEW, OLD, UNWRAPPED = "transformers-5", "transformers-4", "unwrapped"

# Sources: transformers' conversion_mapping.py (in 4.52 to 4.57 `_checkpoint_conversion_mapping` of
# each class), under "llava", "CLIPVisionModel", "Qwen2VLForConditionalGeneration" and "ViTModel";
# torch's DistributedDataParallel, which keeps the model as its `module`.
NAMINGS = (
    Naming("the adapter was trained on a model of the same class and version"),
    Naming(
        "LLaVA, Gemma 3 and their like before transformers 4.52",
        (*_LLAVA_BEFORE, (rf"^vision_tower\.(?={_IN_TOWER}\.)", "vision_tower.vision_model.")),
        OLD,
        rf"^model\.({_PARTS})\.",
    ),
    Naming("the same, of towers that never had a `vision_model` in them", _LLAVA_BEFORE),
    Naming(
        "LLaVA, Gemma 3 and their like in transformers 5",
        (*_LLAVA_MOVED, (r"^(model\.vision_tower\.)vision_model\.", r"\1")),
        NEW,
        rf"^(language_model\.(model|lm_head)|{_PARTS}|model\.vision_tower\.vision_model)(\.|$)",
    ),
    Naming("LLaVA, Gemma 3 and their like from transformers 4.52 to 5.0", _LLAVA_MOVED),
    Naming(
        "Qwen2-VL and its like before transformers 4.52",
        ((r"^model\.language_model\.", "model."), (r"^model\.visual\.", "visual.")),
        OLD,
        r"^model\.visual\.",
    ),
    Naming(
        "Qwen2-VL and its like since transformers 4.52",
        (
            (rf"^model\.(?!language_model\.|visual\.|({_PARTS})\.)", "model.language_model."),
            (r"^visual\.", "model.visual."),
        ),
        NEW,
        r"^visual\.",
    ),
    Naming(
        "ViT and its like before transformers 5",
        (
            (r"(^|\.)layers\.(?=\d)", r"\1encoder.layer."),
            (r"\.attention\.q_proj\.", ".attention.attention.query."),
            (r"\.attention\.k_proj\.", ".attention.attention.key."),
            (r"\.attention\.v_proj\.", ".attention.attention.value."),
            (r"\.attention\.o_proj\.", ".attention.output.dense."),
            (r"\.mlp\.fc1\.", ".intermediate.dense."),
            (r"\.mlp\.fc2\.", ".output.dense."),
        ),
        OLD,
        r"(^|\.)layers\.\d+\.attention\.[qkvo]_proj$",
        is_broad=True,
    ),
    Naming(
        "ViT and its like since transformers 5",
        (
            (r"(^|\.)encoder\.layer\.(?=\d)", r"\1layers."),
            (r"\.attention\.attention\.query\.", ".attention.q_proj."),
            (r"\.attention\.attention\.key\.", ".attention.k_proj."),
            (r"\.attention\.attention\.value\.", ".attention.v_proj."),
            (r"\.attention\.output\.dense\.", ".attention.o_proj."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"\.output\.dense\.", ".mlp.fc2."),
        ),
        NEW,
        r"\.attention\.attention\.(query|key|value)$",
        is_broad=True,
    ),
    Naming(
        "the model inside DistributedDataParallel",
        ((r"^(module\.)+", ""),),
        UNWRAPPED,
        r"^module\.",
    ),
)


def named(word: str, modules: Sequence[str]) -> dict[str, str]:
    """What those modules are called that a naming calls otherwise.

    Args:
        word: what the recipe calls the naming.
        modules: of an adapter, or the tensors of a model.

    Raises:
        Fault: PEM0360 there is no such naming, PEM0361 it changes no module, or the modules do not
            show which model's names are meant.
    """
    records = [naming for naming in NAMINGS if naming.word == word]
    if not records or not word:
        words = list(dict.fromkeys(naming.word for naming in NAMINGS if naming.word))
        close = nearest(word, words)
        raise Fault(
            "PEM0360",
            f"there is no naming {visible(word, 60)!r}",
            f'"{close}"' if close else f"give one of {listed(words)}, or say what becomes of what",
            ('rules of your own: names={ "a.*": "b.*" }',),
        )
    changes = [(naming, changed) for naming in records if (changed := naming.changed(modules))]
    plain = [(naming, changed) for naming, changed in changes if naming.is_plain(modules)]
    if len(plain) == 1:
        return plain[0][1]
    perhaps = plain or [(naming, changed) for naming, changed in changes if not naming.is_broad]
    if not perhaps:
        raise Fault(
            "PEM0361",
            f"by {visible(word)} no module has another name: {listed(modules)}",
            "leave names= out, or say what becomes of what",
            ('rules of your own: names={ "a.*": "b.*" }',),
        )
    first, *others = perhaps
    either = "; or ".join(naming.seen for naming, _ in perhaps)
    raise Fault(
        "PEM0361",
        f"its modules do not show whose names these are; by {visible(word)} they may be those of "
        f"{either}",
        rules_text(first[1]) or "say what becomes of what, as in names= of docs/language.md",
        [f"or {text}" for _, changed in others if (text := rules_text(changed))],
    )


@dataclass(frozen=True)
class NamingRule:
    """A rule that a recipe states: `*` is any text, as short as it can be, and stands in the new
    name for what it stood for in the old one."""

    old: str
    new: str

    def hold(self) -> None:
        """Raise PEM0362 where it cannot be followed."""
        old, new = visible(self.old, 60), visible(self.new, 60)
        name, stars = self.new.replace("*", "x"), self.old.count("*")
        if self.new.startswith(PREFIX):
            raise Fault(
                "PEM0362",
                f"{new!r} begins with what PEFT puts before the names of modules",
                f"leave {PREFIX} out on both sides: rules are for the model's own names",
            )
        if not name.isprintable() or " " in name or not all(name.split(".")):
            raise Fault(
                "PEM0362",
                f"{new!r} makes no names of modules",
                "write names with dots between their parts, and no space",
            )
        if stars != self.new.count("*") or stars > MAX_STARS:
            raise Fault(
                "PEM0362",
                f"{old!r} has {stars} `*`, {new!r} has {self.new.count('*')}",
                f"write as many `*` on both sides, {MAX_STARS} at most",
            )

    def of(self, module: str) -> str | None:
        """What a module is called by it; None where it is of others."""
        first, *rest = self.old.split("*")
        if not rest:
            return self.new if module == self.old else None
        *between, last = rest
        if not module.startswith(first):
            return None
        at, taken = len(first), []
        for text in between:
            found = module.find(text, at)
            if found < 0:
                return None
            taken.append(module[at:found])
            at = found + len(text)
        end = len(module) - len(last)
        if end < at or not module.endswith(last):
            return None
        parts = self.new.split("*")
        return "".join(map("".join, zip(parts, [*taken, module[at:end], ""], strict=True)))


def by_rule(rule: NamingRule, modules: Collection[str]) -> dict[str, str]:
    """What some modules are called by a rule, of those that it is about.

    Raises:
        Fault: PEM0361 it is about none, PEM0362 it cannot be followed.
    """
    rule.hold()
    new = {module: name for module in modules if (name := rule.of(module)) is not None}
    if not new:
        raise Fault(
            "PEM0361",
            f"no module is called {visible(rule.old, 80)!r}, but for those that a rule before it "
            "names",
            f"write a pattern of names that are left: {listed(modules)}"
            if modules
            else "leave the rule out, or move it before the others",
        )
    long = next((name for name in new.values() if len(name) > MAX_NAME), None)
    if long is not None:
        raise Fault(
            "PEM0362",
            f"{visible(long, 60)!r} is too long for the name of a module",
            f"write names of at most {MAX_NAME} characters",
        )
    return new


def hold_apart(names: Iterable[tuple[str, str]]) -> None:
    """Raise PEM0363 where two modules, or two parts of one, get one name; `names` are old and
    new."""
    olds: dict[str, str] = {}
    for module, name in names:
        if name in olds:
            both = f"{visible(olds[name])} and {visible(module)} would both"
            raise Fault(
                "PEM0363",
                f"{both if olds[name] != module else f'two parts of {visible(module)} would'} be "
                f"called {visible(name)}",
                "give each module a name of its own",
            )
        olds[name] = module


_SAYABLE = re.compile(r"[\w.*-]+")


def is_sayable(pattern: str) -> bool:
    """Whether a rule that is shown may have a name, or a pattern of names, as it is."""
    return _SAYABLE.fullmatch(pattern) is not None


def rules_text(names: Mapping[str, str]) -> str | None:
    """Rules that call some modules what they are called here; None where that takes too many."""
    rules: dict[str, str] = {}
    for old, new in names.items():
        start, end = layer_start(old), layer_start(new)
        if start and end is not None and old[start:] == new[end:]:
            old, new = f"{old[:start]}*", f"{new[:end]}*"  # noqa: PLW2901
        if rules.setdefault(old, new) != new or not (is_sayable(old) and is_sayable(new)):
            return None
    if not 0 < len(rules) <= MAX_SHOWN:
        return None
    return "{ " + ", ".join(f'"{old}": "{new}"' for old, new in rules.items()) + " }"
