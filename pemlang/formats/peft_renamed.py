"""An adapter of PEFT by other names: what trainers leave in the names of its tensors, and what a
recipe calls its modules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pemlang.diagnostics import Fault, visible
from pemlang.formats.adapter import Adapter, PartsOf
from pemlang.formats.patterns import one_config
from pemlang.formats.peft_config import Config
from pemlang.formats.peft_experts import adapted_modules
from pemlang.formats.peft_names import PREFIX, ROWS
from pemlang.formats.peft_patterns import CHOOSING, feeds_forward, left_out_by, module_of
from pemlang.modules.sites import EXPERTS
from pemlang.tensorfiles.safetensors import Header

# torch calls a module so inside one that compiles it, shards it, or checkpoints its activations:
# `torch._dynamo.OptimizedModule`, `FullyShardedDataParallel`, `checkpoint_wrapper`.
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_WRAPPER = re.compile(rf"(?:(?<=\.)|^)(?:{'|'.join(map(re.escape, _WRAPPERS))})")
# DistributedDataParallel around a PeftModel; inside of one, `module` may be the model's own word.
_OUTSIDE = re.compile(rf"(?:module\.)+(?={re.escape(PREFIX)})")
_FACTOR = re.compile(
    r"\.(?:lora_[AB]\.weight|lora_embedding_[AB]|ia3_l"
    r"|lora_[ABE]|hada_w[12]_[ab]|lokr_w[12](?:_[ab])?)$"
)
_LISTS = ("target_modules", "exclude_modules", "modules_to_save", "feedforward_modules")


def without_leavings(header: Header, config: Config) -> tuple[Header, Config]:
    """The names that tensors would have had, had their model been saved by itself: without what
    torch.compile, FSDP and DistributedDataParallel put before them, with the prefix of PEFT once,
    and with it where no tensor has it. PEFT itself finds no module by any such name, and leaves
    its factors at zero.

    Raises:
        Fault: PEM0416 two tensors that would have one name.
    """
    keys = header.entries
    doubled = PREFIX + PREFIX
    if all(
        key.startswith(PREFIX) and not key.startswith(doubled) and not _WRAPPER.search(key)
        for key in keys
    ):
        return header, config
    plain = {key: _plain(key) for key in keys}
    bare = not any(key.startswith(PREFIX) for key in plain.values())
    if bare and any(_FACTOR.search(key) for key in keys):
        plain = {key: PREFIX + name for key, name in plain.items()}
    entries, olds = {}, dict[str, str]()
    for key, name in plain.items():
        if name in olds:
            raise Fault(
                "PEM0416",
                f"{visible(olds[name])} and {visible(key)} are one tensor, {visible(name)}, but "
                "for what wrapped their modules",
                "save the adapter of the model without what wraps it: torch.compile, "
                "DistributedDataParallel or another PeftModel",
            )
        olds[name] = key
        entries[name] = keys[key]
    cleaned = {
        field: [_plain(f"{PREFIX}{x}").removeprefix(PREFIX) for x in names]
        for field in _LISTS
        if isinstance(names := config.raw.get(field), list)
    }
    feedforward = config.feedforward
    if "feedforward_modules" in cleaned:
        feedforward = tuple(cleaned["feedforward_modules"])
    heads = tuple(cleaned.get("modules_to_save", config.modules_to_save))
    cleaned_config = replace(
        config, raw={**config.raw, **cleaned}, feedforward=feedforward, modules_to_save=heads
    )
    return Header(entries, header.data_start), cleaned_config


def _plain(key: str) -> str:
    key = _OUTSIDE.sub("", _WRAPPER.sub("", key), count=1)
    while key.startswith(PREFIX + PREFIX):
        key = key.removeprefix(PREFIX)
    return key


def head_of(key: str) -> str:
    """The module that a whole tensor belongs to."""
    name = key.removeprefix(PREFIX)
    if name.endswith(ROWS):
        return name.removesuffix(ROWS)
    return name.rpartition(".")[0].removesuffix(".base_layer")


def with_names(adapter: Adapter, names: Mapping[str, str]) -> Adapter:
    """An adapter whose sites have new names, with its heads and its config by new ones too."""

    def new(key: str) -> str:
        head = head_of(key)
        rest = key.removeprefix(PREFIX).removeprefix(head)
        return f"{PREFIX}{names.get(head, head)}{rest}"

    layout = adapter.layout
    heads = {new(key): entry for key, entry in layout.heads.items()}
    entries = {new(k) if k in layout.heads else k: x for k, x in adapter.header.entries.items()}
    whole_modules = tuple(_head_named(name, layout.heads, names) for name in adapter.whole_modules)
    renamed = replace(
        adapter,
        header=Header(entries, adapter.header.data_start),
        layout=replace(
            layout,
            heads=dict(sorted(heads.items())),
            copies=frozenset(map(new, layout.copies)),
            of_base=frozenset(map(new, layout.of_base)),
            rows={new(key): rows for key, rows in layout.rows.items()},
        ),
        whole_modules=whole_modules,
    )
    return replace(renamed, fields=_choosing(renamed))


def _head_named(name: str, heads: Mapping[str, object], names: Mapping[str, str]) -> str:
    """A name of `modules_to_save`, which says how the names of modules end, by their new names."""
    for head in map(head_of, heads):
        new = names.get(head, head)
        if f".{head}".endswith(f".{name}") and not f".{new}".endswith(f".{name}"):
            return new
    return name


def _in_parts(targets: Sequence[object], parts_of: PartsOf) -> list[str]:
    """Names of `target_modules`, which say how the names of modules end, with those of the parts in
    the place of a name that means modules in parts."""
    instead: dict[str, list[str]] = {str(target): [] for target in targets}
    for module, parts in parts_of.items():
        pieces = module.split(".")
        for depth in range(1, len(pieces) + 1):
            end = ".".join(pieces[-depth:])
            if end in instead:
                instead[end] += [".".join(part.name.split(".")[-depth:]) for part in parts]
    names = (name for target, parts in instead.items() for name in parts or [target])
    return list(dict.fromkeys(names))


def _choosing(adapter: Adapter) -> dict[str, object]:
    """A config whose fields choose the sites of an adapter by the names that these have now: its
    own where they do, the names themselves where they do not."""
    fields = dict(adapter.fields)
    targets = fields.get("target_modules")
    if adapter.parts_of and isinstance(targets, list):
        fields["target_modules"] = _in_parts(targets, adapter.parts_of)
    if adapter.whole_modules:
        fields["modules_to_save"] = list(adapter.whole_modules)
    shapes = adapter.layout.shapes
    experts = [site for site, shape in shapes.items() if shape.layer == EXPERTS]
    if experts:
        fields["target_parameters"] = experts
    modules = {module_of(site) for site in adapted_modules(shapes)}
    with one_config():
        spec = [fields.get(field) for field in CHOOSING]
        if any(left_out_by(module, *spec) for module in modules):
            fields |= dict.fromkeys(CHOOSING, None)
            fields["modules_to_save"] = list(adapter.whole_modules) or None
            fields["target_modules"] = sorted(modules)
        inputs = [x for x, shape in shapes.items() if shape.layer == "gain_in"]
        own = fields.get("feedforward_modules")
        names = own if isinstance(own, str) else tuple(own) if isinstance(own, list) else None
        if inputs and any(
            feeds_forward(names, site) != (site in inputs) for site in adapter.layout.shapes
        ):
            fields["feedforward_modules"] = sorted(inputs)
    return fields
