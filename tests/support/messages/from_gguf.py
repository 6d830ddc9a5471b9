"""Messages about GGUF files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pemlang.tensorfiles import read_gguf
from support import ia3, lora
from support.gguf_made import BROKEN, gguf_lora
from support.messages.case import MADE, Diagnostics, made, raised, text_checked


def of_broken(name: str, root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    """What a check says of an adapter that is broken."""
    gguf_lora(root / f"gguf/{name}.gguf", 1, **BROKEN[name][1])
    return text_checked(root, f'adapter x = "gguf/{name}.gguf"\n')


for _name in ("a model", "a weight", "half a site", "nothing", "quantised", "whole numbers",
              "experts", "another method", "an alpha of text"):  # fmt: skip
    MADE[f"{BROKEN[_name][0]}-gguf-{_name.replace(' ', '-')}"] = partial(of_broken, _name)


@made
def PEM0354_gguf_of_two_kinds(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    for name in ("llama", "qwen3"):
        gguf_lora(root / f"gguf/{name}.gguf", 1, architecture=name)
    declared = 'adapter x = "gguf/llama.gguf"\nadapter y = "gguf/qwen3.gguf"\n'
    return text_checked(root, f'{declared}save x + y to "out/z.gguf"\n')


LLAMA = {"model.layers.0.self_attn.q_proj": (32, 32), "model.layers.0.self_attn.q_norm": (32, 32)}
MODEL = '{"architectures": ["LlamaForCausalLM"], "num_attention_heads": 4}'


def saved(root: Path, name: str, make: Callable[[Path], Path], beside: str = MODEL) -> Diagnostics:
    """What a check says of saving an adapter of PEFT in GGUF."""
    (make(root / "gguf" / name) / "config.json").write_text(beside)
    text = f'adapter x = "gguf/{name}"\nsave x to "out/z.gguf" with format=gguf\n'
    return text_checked(root, text)


@made
def PEM0354_gguf_another_module(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return saved(root, "normed", lambda at: lora(at, sites=LLAMA))


@made
def PEM0354_gguf_no_model(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return saved(root, "lone", lambda at: lora(at, sites=LLAMA), "{}")


@made
def PEM0354_gguf_renamed(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    gguf_lora(root / "gguf/x.gguf", 1)
    rule = '{ "blk.*.attn_q": "model.layers.*.self_attn.q_proj" }'
    return text_checked(root, f'adapter x = "gguf/x.gguf" with names={rule}\n')


@made
def PEM0421_gguf_gains(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    site = "model.layers.0.self_attn.v_proj"
    return saved(root, "gains", lambda at: ia3(at, 1, {site: 16}, {}))


@made
def PEM0411_gguf_gone(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return raised(lambda: read_gguf(root / "gone.gguf"))


@made
def PEM0412_gguf_cut_short(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    file = gguf_lora(root / "gguf/short.gguf", 1)
    file.write_bytes(file.read_bytes()[:-4000])
    return text_checked(root, 'adapter x = "gguf/short.gguf"\n')


@made
def PEM0419_gguf_of_float64(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    gguf_lora(root / "gguf/x.gguf", 1)
    text = 'adapter x = "gguf/x.gguf"\nsave x to "out/z.gguf" with dtype=f64\n'
    return text_checked(root, text)
