"""A model directory as transformers' save_pretrained writes it: one file of tensors, or shards with
an index, and a config; in older ones the files are pickles, of which nothing is run. Its sites are
its tensors, whatever the architecture: all is read from headers."""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.disk import is_dir, is_file, lfs_pointer, open_plain
from pemlang.formats.adapter import Adapter, Layout
from pemlang.formats.quantised import hold_plain
from pemlang.formats.record import (
    AdapterSpec,
    Detection,
    Format,
    OutputLayout,
    register,
)
from pemlang.formats.signature import compact, headers_restored
from pemlang.formats.vocabulary import Vocabulary, read_vocabulary
from pemlang.modules import Shapes, SiteShape
from pemlang.modules.dense import DENSE
from pemlang.tensorfiles.dtypes import FLOATS
from pemlang.tensorfiles.jsons import load_json, parse_json
from pemlang.tensorfiles.reference import TensorRef
from pemlang.tensorfiles.safetensors import Header, TensorEntry, read_header

MAX_JSON = 64 << 20

SINGLE = "model.safetensors"
INDEX = f"{SINGLE}.index.json"
PICKLED = "pytorch_model.bin"
PICKLED_INDEX = f"{PICKLED}.index.json"
WEIGHTS = {SINGLE: INDEX, PICKLED: PICKLED_INDEX}
"""The file of a model's tensors, and the index of its shards in its place: the first that is there
is read."""

CONFIG = "config.json"
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json",
    "vocab.txt", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
"""The files of a tokenizer, with the template of a chat."""

BESIDE = (
    "generation_config.json", *TOKENIZER, "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
"""What an output has from the model that it is made from, beside weights and config."""


_TOLD = ("model_type", "tie_word_embeddings", "architectures")
"""The fields of a config that say how tensors are stored."""

_WRITERS = (
    "ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForMaskedLM", "ForPreTraining",
    "WithLMHead",
)  # fmt: skip
"""How the names of classes end that have an output layer over the vocabulary."""

_EMBEDDINGS = frozenset(
    "embed_tokens wte wpe word_embeddings position_embeddings token_type_embeddings "
    "embed_positions shared tok_embeddings".split()
)
"""What transformers calls modules that are embeddings: nn.Embedding of (rows, dim)."""

_TOKENS = frozenset("embed_tokens wte word_embeddings shared tok_embeddings embed_in".split())
_OUTPUTS = frozenset("lm_head embed_out".split())
"""What transformers calls the embedding of tokens, and the layer that may be tied to it."""

_CONV1D_MODULES = frozenset("c_attn c_proj c_fc q_attn".split())
_CONV1D = dict.fromkeys(
    ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"), _CONV1D_MODULES
)
"""Modules of transformers' Conv1D by model_type: they store (in, out), the transpose of others."""


@dataclass(frozen=True, eq=False)
class StoredModel(Adapter):
    """A model as it is known without a number of its tensors.

    Attributes:
        shards: its files of tensors in order, with the header of each.
    """

    shards: Mapping[Path, Header] = field(default_factory=dict)

    @cached_property
    def _homes(self) -> Mapping[str, Path]:
        """The shard that each of its tensors lies in."""
        return {key: file for file, header in self.shards.items() for key in header.entries}

    def reference(self, key: str) -> TensorRef:
        """Where one of its tensors lies."""
        file = self._homes[key]
        return self.shards[file].reference(file, key)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Its tokens; raises Fault as read_vocabulary."""
        return read_vocabulary(self.directory)

    @property
    def tensor_files(self) -> list[Path]:
        """Its shards."""
        return list(self.shards)

    @property
    def beside(self) -> list[Path]:
        """What it has beside its tensors that an output keeps."""
        names = (CONFIG, *BESIDE)
        return [self.directory / name for name in names if is_file(self.directory / name)]


class Transformers(Format):
    """Whole weights."""

    name = "transformers"
    holds = "model"
    weights = SINGLE
    texts = ()
    library = "transformers"

    def detect(self, place: Path) -> Detection:
        """See Format."""
        present = [name for name in _holders() if is_file(place / name)][:1]
        pointer = any(lfs_pointer(place / name) is not None for name in present)
        return Detection(bool(present), bool(present) and not pointer, " and ".join(present))

    def readable(self, place: Path) -> list[Path]:
        """See Format."""
        names = [*_holders(), CONFIG, *BESIDE]
        with suppress(Fault):  # `read` says what is wrong
            names += [file.name for file in model_files(place)]
        return [place / name for name in names]

    def read(self, place: Path) -> Adapter:
        """See Format.

        Raises:
            Fault: as model_files; PEM0411 and PEM0412 as read_header; PEM0413 as
                read_pickled_header; PEM0417 an empty tensor, PEM0431 weights that are stored
                quantised.
        """
        return self.of_headers(place, {file: header_of(file) for file in model_files(place)})

    def of_header(self, place: Path, header: Header) -> Adapter:
        """See Format."""
        return self.of_headers(place, {place / SINGLE: header})

    def of_headers(self, place: Path, shards: Mapping[Path, Header]) -> Adapter:
        """As `read`, where its files of tensors are elsewhere, and these are their headers."""
        config = config_of(place)
        hold_plain(place, config, ChainMap(*(dict(x.entries) for x in shards.values())))
        _hold_own(place)
        if len(shards) > 1:
            _hold_indexed(_index_of(shards), shards)
        return _assembled(place, shards, _told(config))

    def files(self, adapter: Adapter) -> list[Path]:
        """See Format."""
        assert isinstance(adapter, StoredModel)
        index = [_index_of(adapter.shards)] if len(adapter.shards) > 1 else []
        return [*adapter.beside, *index, *adapter.shards]

    def signature(self, adapter: Adapter) -> dict[str, object]:
        """See Format."""
        return {"config": dict(adapter.fields), "tensors": compact(adapter.header.entries)}

    def restored(self, signature: Mapping[str, object], directory: Path, weights: str) -> Adapter:
        """See Format."""
        header, _ = headers_restored(signature)
        config = signature.get("config")
        fields = _told(config) if isinstance(config, dict) else {}
        return _assembled(directory, {directory / weights: header}, fields)

    def modules(self, adapter: Adapter) -> list[str]:
        """See Format: all its tensors."""
        return list(adapter.header.entries)

    def renamed(self, adapter: Adapter, names: Mapping[str, str]) -> Adapter:
        """See Format."""
        assert isinstance(adapter, StoredModel)
        shards = {
            file: Header({names.get(k, k): x for k, x in own.entries.items()}, own.data_start)
            for file, own in adapter.shards.items()
        }
        model = _assembled(adapter.directory, shards, adapter.fields)
        return replace(model, seen=adapter.seen, stored=adapter)

    def layout(self, spec: AdapterSpec) -> OutputLayout:
        """See Format; raises Fault PEM0353 for layers that its config cannot say."""
        from pemlang.formats.transformers_write import model_layout

        return model_layout(spec)

    def writes(self, name: str) -> bool:
        """See Format: its shards are called as those of the model that it is made from."""
        return name in (CONFIG, INDEX, *BESIDE) or name.endswith(".safetensors")

    def wrote(self, names: Collection[str]) -> bool:
        """See Format."""
        return SINGLE in names or INDEX in names

    def loading(self, base: str) -> Sequence[str]:
        """See Format."""
        return (
            "from transformers import AutoModel  # or the class of its task",
            "",
            "model = AutoModel.from_pretrained(path_of_this_directory)",
        )


TRANSFORMERS = Transformers()
register(TRANSFORMERS)


def is_model(directory: Path) -> bool:
    """Whether a directory holds whole weights."""
    return any(is_file(directory / name) for name in _holders())


def _holders() -> list[str]:
    """The names of files of which a model has one."""
    return [name for names in WEIGHTS.items() for name in names]


def header_of(file: Path) -> Header:
    """The header of a file of a model's tensors; raises as read_header and read_pickled_header."""
    if file.suffix != ".bin":
        return read_header(file)
    from pemlang.tensorfiles.pickled import read_pickled_header

    return read_pickled_header(file)


def _index_of(shards: Iterable[Path]) -> Path:
    """The index of some shards."""
    first = next(iter(shards))
    return first.with_name(PICKLED_INDEX if first.suffix == ".bin" else INDEX)


def _all_there(directory: Path, names: Sequence[str]) -> list[Path]:
    missing = [visible(name) for name in names if not os.path.lexists(directory / name)]
    if missing:
        raise Fault(
            "PEM0412",
            f"{visible(directory)} lacks {len(missing)} of its {len(names)} shards: "
            f"{listed(missing)}",
            "download the model again",
        )
    return [directory / name for name in names]


def model_files(directory: Path) -> list[Path]:
    """The files of a model's tensors; raises Fault PEM0430 where there is no model, PEM0412 where
    shards are missing."""
    for single, index in WEIGHTS.items():
        if is_file(directory / single):
            return [directory / single]
        if is_file(directory / index):
            return _all_there(directory, shards_of(directory / index))
    why = f"it has no {SINGLE} or {PICKLED}" if is_dir(directory) else "there is none"
    if is_file(directory):
        why = "it is a file"
    raise Fault(
        "PEM0430",
        f"{visible(directory)} is not a model directory: {why}",
        "whole weights are needed here: give a directory written by save_pretrained",
    )


def shards_of(index: Path) -> list[str]:
    """The names of the shards that an index has; raises Fault as _indexed."""
    return sorted(set(_indexed(index).values()))


def _indexed(index: Path) -> dict[str, str]:
    """The shard of each tensor; raises Fault PEM0430 for what is no index."""
    try:
        data: Any = load_json(index.read_bytes()) if index.stat().st_size <= MAX_JSON else None
        names: dict[str, str] = data["weight_map"]
        if not names or any(not isinstance(n, str) or Path(n).name != n for n in names.values()):
            raise ValueError
        if len({Path(name).suffix for name in names.values()}) > 1:
            raise ValueError
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Fault(
            "PEM0430",
            f"{visible(index)} is not an index of shards beside it",
            "download the model again",
        ) from None
    return names


def _hold_indexed(index: Path, shards: Mapping[Path, Header]) -> None:
    """Raise PEM0412 for a tensor that an index has and its shard has not."""
    for key, name in _indexed(index).items():
        if key not in shards[index.parent / name].entries:
            raise Fault(
                "PEM0412",
                f"{visible(index)} says that {visible(key)} is in {visible(name)}, and it is not",
                "download the model again",
            )


def stored_as(model: Adapter, tensor: str) -> str:
    """How a matrix of a model is stored: `linear` (out, in), `conv1d` (in, out), `embedding`
    (rows, dim)."""
    module = module_of(tensor)
    if module in _EMBEDDINGS:
        return "embedding"
    kinds = model_types(model.fields)
    return "conv1d" if any(module in _CONV1D.get(kind, ()) for kind in kinds) else "linear"


def model_types(config: Mapping[str, object]) -> set[str]:
    """The model_type of a config, and of those inside it."""
    own = config.get("model_type")
    inner = [model_types(part) for part in config.values() if isinstance(part, dict)]
    return {own for own in [own] if isinstance(own, str)}.union(*inner)


def is_shared(model: Adapter, tensor: str) -> bool:
    """Whether a tensor, as an adapter's base names it, may be the embedding of a model and its
    output layer at once: the two are tied, or T5's encoder and decoder share it."""
    module = module_of(tensor)
    classes = model.fields.get("architectures")
    named = classes if isinstance(classes, list) else [""]
    writes = any(name == "" or str(name).endswith(_WRITERS) for name in named)
    if module == "shared":
        return True
    if module not in _TOKENS | _OUTPUTS or not writes:
        return False
    said = _said(model.fields, "tie_word_embeddings")
    names = {module_of(key) for key in model.header.entries}
    return said is True or (said is None and not names & _OUTPUTS)


def is_embedding(tensor: str) -> bool:
    """Whether a tensor, as an adapter's base names it, has a row for each token that is read."""
    return module_of(tensor) in _TOKENS


def _said(config: Mapping[str, object], key: str) -> object:
    """What a config says, or one inside it."""
    if key in config:
        return config[key]
    inner = [_said(part, key) for part in config.values() if isinstance(part, dict)]
    return next((value for value in inner if value is not None), None)


def tokenizer_files(model: Adapter) -> list[Path]:
    """What a model has of a tokenizer; nothing where it lies elsewhere."""
    if not isinstance(model, StoredModel):
        return []
    return [path for path in model.beside if path.name in TOKENIZER]


def last_token(model: Adapter) -> int | None:
    """The highest number of a token of a model; None where no file tells."""
    assert isinstance(model, StoredModel)
    try:
        return max(model.vocabulary.numbers.values(), default=None)
    except Fault:
        return None


def token_rows(shapes: Shapes) -> int | None:
    """The rows of the embedding of tokens of a model; None where no name tells which tensor that
    is."""
    rows = [shape.a[0] for name, shape in shapes.items() if module_of(name) in _TOKENS]
    return min(rows, default=None)


def is_of_tokens(name: str) -> bool:
    """Whether a tensor is called as those are that have a row for each token."""
    return not (_TOKENS | _OUTPUTS | {"predictions"}).isdisjoint(name.split("."))


def module_of(tensor: str) -> str:
    """The last name of the module of a weight."""
    return tensor.removesuffix(".weight").rpartition(".")[2]


def _assembled(
    directory: Path, shards: Mapping[Path, Header], fields: Mapping[str, object]
) -> StoredModel:
    """A model of its headers; raises PEM0412 for a tensor that two shards have, PEM0417."""
    entries: dict[str, TensorEntry] = {}
    for file, header in shards.items():
        for name, entry in header.entries.items():
            if name in entries:
                raise Fault(
                    "PEM0412",
                    f"{visible(file)} has {visible(name)}, which another shard has too",
                    "download the model again",
                )
            entries[name] = entry
    empty = [name for name, entry in entries.items() if not all(entry.shape)]
    if empty:
        raise Fault(
            "PEM0417",
            f"{visible(empty[0])} is empty, of shape {list(entries[empty[0]].shape)}: it was saved "
            "while DeepSpeed's ZeRO-3 had its numbers elsewhere",
            "save it again with stage3_gather_16bit_weights_on_model_save=true",
        )
    sites = {name: entry for name, entry in entries.items() if entry.dtype in FLOATS}
    if not sites:
        raise Fault(
            "PEM0430",
            f"{visible(directory)} is not a model directory: no tensor in it holds floats",
            "give a directory written by save_pretrained",
        )
    layout = Layout(
        Shapes({name: SiteShape(DENSE.name, "dense", x.whole) for name, x in sites.items()}),
        {},
        {name: (name,) for name in sites},
        {name: entry for name, entry in sorted(entries.items()) if name not in sites},
        frozenset(entry.dtype for entry in sites.values()),
    )
    header = Header(entries, 0)
    first = next(iter(shards))
    return StoredModel(
        TRANSFORMERS,
        directory,
        first,
        header,
        layout,
        {},
        fan_in_fan_out=fields.get("model_type") in _CONV1D,
        fields=fields,
        shards=shards,
    )


def config_of(directory: Path) -> dict[str, object]:
    """The config of a model; empty where it has none that can be read."""
    try:
        with open_plain(directory / CONFIG) as file:
            config = parse_json(file.read(MAX_JSON))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _told(config: Mapping[str, object], depth: int = 3) -> dict[str, object]:
    """The fields of a config that are known of a model, and of the configs inside it."""
    parts = {key: x for key, x in config.items() if depth and isinstance(x, dict)}
    inner = {key: _told(value, depth - 1) for key, value in parts.items()}
    own = {key: config[key] for key in _TOLD if isinstance(config.get(key), str | bool | list)}
    return {**{key: value for key, value in inner.items() if value}, **own}


def _hold_own(directory: Path) -> None:
    """Raise PEM0437 for a file beside the tensors that is a link to another's elsewhere: an output
    would have a copy of whatever that is. The hub's cache links to files that are called by their
    digests."""
    for name in (CONFIG, *BESIDE):
        path = directory / name
        if not path.is_symlink():
            continue
        target = path.resolve()
        inside = target.is_relative_to(directory.resolve()) or target.parent.name == "blobs"
        if not inside and target.name != name:
            raise Fault(
                "PEM0437",
                f"{visible(path)} is a link to {visible(target)}, which an output would have a "
                "copy of",
                f"if that is meant, put a copy of it in the place of the link: "
                f"{visible(directory)} may not be what it seems",
            )
