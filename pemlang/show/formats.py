"""The formats of adapters as a page, by their records: docs/formats.md."""

from __future__ import annotations

from collections.abc import Iterator

from pemlang.formats import ARCHITECTURES, formats_of
from pemlang.formats.one_file import ENDS, REFUSED, OneFile
from pemlang.formats.readers import READERS, OutputReader
from pemlang.modules.stored import STORED_FORMS

_ABOUT = """# Files of adapters

What an adapter's files are is seen, not said: `adapter x = "styles/ink.safetensors"` is read as
what its names say it is, from its header alone. An output has the format of what it is made from,
or the one that `format=` says:

```text
adapter ink = "styles/ink.safetensors"
adapter wash = "styles/wash.safetensors"

save 0.7 * ink + 0.3 * wash to "out/both.safetensors" with format=kohya, rank=32
```

An adapter of PEFT is a folder; [the README](../README.md#what-it-reads-and-writes) has what of it
is read. So is one of [mlx-lm](#mlx-lm); one of llama.cpp is [one file](#gguf), and LoRAs of image
models are. On the hub a file is named as `"hf://org/name/styles/ink.safetensors@revision"`.

A LoRA of an image model has a pair of factors at a site, and often α as a number of its own:
Δ = (α/r)·B·A, and without it α is the rank.
"""

_WRITTEN = """
Older keys of diffusers, `….processor.to_q_lora.down.weight` and `….lora_linear_layer.down.weight`,
are read by the names that diffusers itself gives them, and so is the config in
`lora_adapter_metadata`, with its patterns and rsLoRA.

Formats name modules differently: `lora_unet_mid_block_attentions_0_…_attn1_to_q` in a file of kohya
is `unet.mid_block.attentions.0.….attn1.to_q` in one of diffusers. Where the names say it, an output
takes those of its format: from diffusers, ComfyUI and Black Forest Labs to kohya, and between the
last two. From kohya to the others its underscores would have to be guessed, which is PEM0354.
`pem convert x.safetensors y.safetensors --to kohya` does it without a recipe.

### Two namings

Of a file of kohya and one of diffusers, one takes the names of the other where it is declared:

```text
adapter ink = "styles/ink.safetensors"                    # lora_unet_…
adapter wash = "styles/wash.safetensors" with names=ink   # unet.…

save 0.7 * ink + 0.3 * wash to "out/both.safetensors"     # lora_unet_…
```

Modules are matched by their names without dots, each with the one that it fits in the other file;
two that fit, or none, are PEM0354. For SDXL sd-scripts counts the blocks of the UNet as Stability's
checkpoint does, `input_blocks_4_1` for `down_blocks.1.attentions.0`: they are matched too. A module
that the other file lacks can still have a name of kohya, but in a file that counts so. An output
has the format whose names it has. `pem convert x.safetensors y.safetensors --to diffusers
--like OTHER` gives one file the names of another.

**α in an output.** A file of kohya has one α for all sites, the most common one of what it is made
from, and B carries the rest. Where α differs from site to site, diffusers (0.42) takes the most
common one for every attention module of a UNet, without a word; where there is one, it reads every
Δ right. In the other formats no α is written: it is the rank, and every reader's scale is 1.

**What a file says of itself.** `ss_…` and `modelspec.…` in the header stay where all inputs say
the same. `ss_network_dim` and `ss_network_alpha` are those of the output;
`ss_network_module` stays where it is that of a LoRA, and `ss_network_args` never. Hashes
(`sshs_model_hash`, `sshs_legacy_hash`, `modelspec.hash_sha256`) are left out: readers that want one
take it from the file.

## One file and what stands beside it

`out/both.safetensors` comes with `out/both.safetensors.provenance.json`, and `pem sign` adds
`out/both.safetensors.sig`, over the provenance, which has the digests of the file. There is no
card. Both are optional to any reader; without the provenance the file is no output of pem any
more: a build does not replace it, and `pem verify` says so. A build puts the provenance in its
place first and the file last, each at once. One that is killed between the two is finished by the
next build there, or by `pem clean`.

`pem plan`, `lock`, `diff`, `inspect`, `report`, `verify`, `explain-output` and `init` take the
file as they take a folder.

## What is recognised and refused

Of these a sum of factors would be wrong. The message names the tensor.

| keys | belong to |
|---|---|
"""

_WHOLE = """
## Whole differences

Beside LoRAs a file of an image model may have changes of whole weights: all of them add, none has
an α, and an output has them by the names that they came with.

| keys | a change of | site |
|---|---|---|
| `diff` | the weight of a layer or of a norm | the module |
| `w_norm` | the weight of a norm | the module |
| `diff_b`, `b_norm` | a bias, with a LoRA beside it or without | the module, and `.bias` |

They are `dense` sites, and a pattern that names a module takes its bias along. `with rank=16` and
`compress(x, rank=16)` make LoRAs of weights and keep norms and biases. Of the readers ComfyUI takes
all four, LyCORIS too, but for a bias beside a LoRA; diffusers drops or refuses most.
"""

_MLX = """
## mlx-lm

A folder with `adapters.safetensors`, and a config that has the name of PEFT's and says
`lora_parameters`. A site has `lora_a` (in, r) and `lora_b` (r,
out), the transposes of PEFT's factors, and all have one rank and one scale:
Δ = scale·(lora_a·lora_b)ᵀ. Modules have the names that transformers gives them, so adapters of both
add up; `format=mlx` and `format=peft` say what comes out, and without either a sum of both is
PEFT's.

```text
pem convert adapters out/for-peft --to peft
pem convert lora out/for-mlx --to mlx
```

The numbers stay the same to the bit where the ranks and scales of an adapter do not differ from
module to module; else rows of zeros bring all ranks to the largest, and B carries the rest of the
scales. `num_layers` of an output is that of its inputs, or -1, which mlx-lm takes for all layers.
The base is what `model` says: a copy that was quantised for MLX has another name than its original,
and a recipe [says that they are one](language.md#statements).

Refused are DoRA, `fine_tune_type` `full`, which are whole weights, and the experts of a layer in
one tensor. `mlx_lm.fuse` makes a model of any of them, and `m - b` is then what it changes.
Convolutions and weights that are saved whole, such as a classifier or trained biases, have no place
in such a file. `heads=none` leaves these weights out, `pem convert` does so by `--heads none`; the
copy of the base's embedding that PEFT saves beside a LoRA on it is left out in any case.
"""

_GGUF = """
## GGUF

A LoRA of llama.cpp is one file, `chat.gguf`, whose `general.type` is `adapter`. Its tensors are
called after those of the model, `blk.0.attn_q.weight.lora_a` (r, in) and `….lora_b` (out, r), of
`token_embd` with lora_a turned. One α is for all modules, and each has its own rank:
Δ = (α/r)·B·A. Without α, or where it is 0, llama.cpp takes Δ for B·A, and so does pem.

An output has one α, the most common one of what it is made from, and B carries the rest. It is
f32, f16 or bf16, and says what its inputs agree on of the model they belong to. The adapters of an
output are of one `general.architecture`.

`pem convert` goes both ways between GGUF, PEFT and mlx-lm. llama.cpp has other names for modules,
and for a llama another order of the rows of q and k, which goes by how many heads these have. A
LoRA of PEFT does not say what model it is of, and one of llama.cpp does not say the heads: both are
read from the `config.json` of the model, if it lies beside the adapter in a folder of yours. Of an
adapter on the hub, convert a copy. A GGUF file that pem wrote says them itself. Known are

{architectures}

Combining GGUF files needs none of that.

```text
cp models/base/config.json lora/
pem convert lora out/lora.gguf --to gguf
pem convert out/lora.gguf out/lora --to peft
```

Quantised tensors are refused: convert the adapter again with `--outtype f16`. So are activated
LoRAs, the experts of a layer in one tensor, and norms that were saved beside the factors, which
llama.cpp leaves out without a word. A whole model in GGUF is shown by `pem inspect`, and nothing is
computed with it: give the model that it was converted from.
"""

_STORED = """
## What is read as a LoRA

Some methods store a change of a weight in other tensors than A and B. They are read as the LoRA
that does the same, and nothing is approximated: every operator works on them, and what is written
is a LoRA. `pem inspect` says how an adapter is stored. Tensors have these names in PEFT's files and
in those of image models.

| method | stored | Δ / s | its rank as a LoRA |
|---|---|---|---|
"""

_RANKS = """
A rank that would be above the number of a module's inputs or outputs is that number: one of the
factors is then Δ, and the other the identity. `with rank=32` keeps the best of a rank.

s is α/r, r the rank it was trained at; 1 of a LoKr in a file of image models whose w1 and w2 are
both whole. With AdaLoRA it is α/(r + 0.00001), r the `init_r` of the config, as in PEFT.

A convolution is stored as if it were linear, its kernel among its inputs, unless it has a kernel of
its own (t1, t2). `b + x` does the same all the same, and so do sums; a LoRA of it fits a module of
PEFT only where that is linear. A LoKr of a convolution over one axis is refused: PEFT multiplies
its tensors along other axes than those of the module. So is anything with a `dora_scale`.
"""


def _gguf() -> str:
    """The section of GGUF, with the models whose names are known."""
    rows = (
        f"| `{known.name}` | {', '.join(f'`{model}`' for model in known.models)} | "
        f"{', '.join(f'`{x}`' for x in ('model.layers.…', *known.outside))} |"
        for known in ARCHITECTURES
    )
    table = ["| architecture | class in transformers | modules |", "|---|---|---|", *rows]
    return _GGUF.format(architectures="\n".join(table))


def _stored_forms() -> str:
    """A row for each stored form."""
    rows = (
        (form.title, ", ".join(f"`{key}`" for key in form.keys), form.formula, form.rank_title)
        for form in STORED_FORMS
    )
    # Those of the same tensors differ in how many axes these have.
    return "".join(f"| {' | '.join(row)} |\n" for row in dict.fromkeys(rows))


_SEVERAL = """
## Several modules in one

Phi-3 has q, k and v in one `qkv_proj`, and Llama has each by itself. An adapter of the one is split
into what it does of the parts where it is declared; A is that of each part, and B (and m of a
DoRA) has a row for each output:

    adapter phi = "adapters/phi" with names={
        "*.qkv_proj": "*.q_proj[0:4096], *.k_proj[4096:5120], *.v_proj[5120:6144]"
    }

A sum with an adapter of the parts, a `join` with one, and a model that has the parts show the rule
to write, for `qkv_proj`, `W_pack`, `Wqkv`, `c_attn`, `to_qkv` and `gate_up_proj`. Where the q, k
and v of each head lie side by side, as in the `query_key_value` of GPT-NeoX and Falcon, there is no
such rule.

## Experts

transformers 5 has the experts of a layer in two parameters, `mlp.experts.gate_up_proj` and
`down_proj`, and PEFT adapts these by `target_parameters`: A is (experts·r, in), B is (out,
r·experts). Each parameter is a site, which has a LoRA of each expert. What is exact on LoRAs is
exact on these: sums, scaling, `join`, selections, norms and cosines, `pem diff`; `⊕ ⊖ ⊗`, `pad` and
`rescale` act on their A and B. What cuts ranks or merges by Δ is refused: select the other sites
first, `x["*.q_proj"]`. In a model the parameters have to be as the adapter has them: a checkpoint
with each expert by itself is saved anew with
`model.save_pretrained(directory, save_original_format=False)`.

An adapter of transformers 4 has each expert by itself, `mlp.experts.0.gate_proj`. It fits models
that are saved so, as transformers 5 saves them too. PEFT stacks such an adapter when it loads it in
transformers 5, by `r` and `lora_alpha` alone, which is wrong with rsLoRA and of unlike scales. So
all experts of an output have one rank and one scale, and these two fields say them.

An adapter of the one form and one of the other do not add. Save the one with each expert by itself
in a recipe of its own, load what comes out with PEFT on the model in transformers 5, and save it
with `save_pretrained`: that is the other form, exactly.
"""

_READERS = """
## Readers of outputs

Programs that load a LoRA of PEFT know less of its config than PEFT does: most take one scale,
`lora_alpha / r`, for all modules. So by default all modules of an output have one scale, and B
carries the rest. Where their ranks differ, rows of zeros bring all to the largest as long as that
makes the file no more than a quarter larger; else the ranks stay, and a warning (PEM0707) says who
reads them wrongly. All experts have one rank in any case: transformers 5 stacks them.

`reader=` says who is to load an output. It is then right for that program, or PEM0367 says at the
check why it cannot be:

```text
save safe to "out/safe" with reader=vllm
save both to "out/both" with reader=llama_cpp, heads=none
```

With `reader=peft` ranks and scales are written as they are. With `vllm` and `sglang`
`target_modules` is a list of names, never a regular expression. vLLM takes a rank up to the
`--max-lora-rank` that it was started with.

| `reader=` | files | modules | ranks | heads | facts of |
|---|---|---|---|---|---|
"""


def as_markdown() -> str:
    """The page."""
    read = ", ".join(f"`{end}`" for end, factor in ENDS.items() if factor == "a")
    lines = [_ABOUT, f"The keys of A end in {read}, those of B alike.", ""]
    lines += ["| `format=` | a site | written | written and read by |"]
    lines += ["|---|---|---|---|", *map(_row, _one_file())]
    refused = "\n".join(f"| {_code(x.shown)} | {x.what} |" for x in REFUSED)
    stored = _WHOLE + _STORED + _stored_forms() + _RANKS + _SEVERAL
    written = "\n".join(lines) + "\n" + _WRITTEN + refused + "\n"
    return written + _MLX + _gguf() + stored + _readers()


def _readers() -> str:
    """The section of the programs that load outputs."""
    facts = [
        f"- {record.title} {fact}: {source}."
        for record in READERS.values()
        for fact, source in record.facts
    ]
    rows = "\n".join(map(_reader_row, READERS.values()))
    return f"{_READERS}{rows}\n\nWhere that stands:\n\n" + "\n".join(facts) + "\n"


def _reader_row(record: OutputReader) -> str:
    ranks = "one for all" if record.one_rank else "any"
    limit = f", at most {record.max_rank}" if record.max_rank is not None else ""
    cells = (
        f"`{record.name}`",
        ", ".join(f"`{name}`" for name in record.formats),
        ", ".join(record.layers) or "all",
        ranks + limit,
        "taken" if record.heads else "refused",
        f"{record.title} {record.since}",
    )
    return f"| {' | '.join(cells)} |"


def _code(listed: str) -> str:
    return ", ".join(f"`{key}`" for key in listed.split(", "))


def _one_file() -> Iterator[OneFile]:
    for record in formats_of("adapter"):
        if isinstance(record, OneFile):
            yield record


def _row(record: OneFile) -> str:
    starts = ", ".join(f"`{start}…`" for start in record.shown_starts)
    written = ", ".join(f"`{end}`" for end in record.written)
    alpha = ", `.alpha`" if record.says_alpha else ""
    cells = (f"`{record.name}`", f"{starts}, as `{record.example}`", written + alpha)
    return f"| {' | '.join(cells)} | {record.written_by} |"
