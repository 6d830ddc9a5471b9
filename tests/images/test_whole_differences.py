"""Whole differences in one-file LoRAs, of weights, biases and norms: they add, keep their names,
and become LoRAs where they are cut. What they mean is written apart from pemlang in float64, and
read off LyCORIS itself where that is installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import error, pem

UNET = "lycoris_mid_block_attentions_0_"
Arrays = dict[str, np.ndarray]


def tensors(seed: int) -> Arrays:
    """A LoRA with a bias, a linear layer, a convolution, norms of two writers, a bias alone."""
    random = np.random.default_rng(seed)
    shapes = {
        "q.lora_down.weight": (2, 6), "q.lora_up.weight": (5, 2), "q.diff_b": (5,),
        "proj.diff": (5, 6), "proj.diff_b": (5,),
        "conv.diff": (4, 3, 3, 3), "conv.diff_b": (4,),
        "norm1.w_norm": (6,), "norm1.b_norm": (6,),
        "norm2.diff": (6,), "norm2.diff_b": (6,),
        "out.diff_b": (3,),
    }  # fmt: skip
    numbers = {f"{UNET}{key}": random.normal(size=shape) for key, shape in shapes.items()}
    return {**numbers, f"{UNET}q.alpha": np.array(3.0 + seed, "f4")}


def changes(file: Arrays) -> Arrays:
    """What each weight and bias changes by: b of NAME is NAME.bias."""
    found: Arrays = {}
    for key, x in file.items():
        name, _, end = key.removeprefix(UNET).partition(".")
        if end in ("diff", "w_norm"):
            found[name] = x
        elif end in ("diff_b", "b_norm"):
            found[f"{name}.bias"] = x
        elif end == "lora_up.weight":
            down = file[f"{UNET}{name}.lora_down.weight"]
            alpha = file.get(f"{UNET}{name}.alpha", np.array(len(down)))
            product = x.reshape(len(x), -1) @ down.reshape(len(down), -1)
            found[name] = (alpha / len(down) * product).reshape(len(x), *down.shape[1:])
    return found


def saved(folder: Path, text: str) -> Arrays:
    """What a recipe over `a` and `b` writes."""
    for seed, name in enumerate("ab"):
        save_file(tensors(seed), folder / f"{name}.safetensors")
    head = 'adapter a = "a.safetensors"\nadapter b = "b.safetensors"\n'
    (folder / "r.pem").write_text(f"{head}{text}")
    done = pem("build", folder / "r.pem")
    assert done.code == 0, done.err
    return load_file(folder / "out.safetensors")


def test_a_sum_is_that_of_all(tmp_path: Path) -> None:
    out = saved(tmp_path, 'save 2 * a - b / 4 to "out.safetensors" with dtype=f64\n')
    a, b, new = changes(tensors(0)), changes(tensors(1)), changes(out)
    assert new.keys() == a.keys()
    for name, x in new.items():
        np.testing.assert_allclose(x, 2 * a[name] - b[name] / 4, rtol=1e-12, err_msg=name)
    assert out.keys() == tensors(0).keys()


def test_parameterwise_it_adds_too(tmp_path: Path) -> None:
    out = saved(tmp_path, 'save a ⊖ rescale(b, like=a) to "out.safetensors" with dtype=f64\n')
    for key, x in out.items():
        if key.endswith(("diff", "diff_b", "norm")):
            np.testing.assert_allclose(x, tensors(0)[key] - tensors(1)[key], rtol=1e-12)


@pytest.mark.parametrize("by", ["rank=2", "energy=0.8"])
def test_a_cut_makes_loras_of_weights(tmp_path: Path, by: str) -> None:
    """The best of its rank of each weight, by numpy's SVD; biases and norms as they are."""
    out = saved(tmp_path, f'save compress(a, {by}) to "out.safetensors" with dtype=f64\n')
    a, new = changes(tensors(0)), changes(out)
    assert not any(key.endswith(("proj.diff", "conv.diff")) for key in out)
    for name, x in new.items():
        wanted = a[name]
        if name in ("proj", "conv"):
            u, s, vt = np.linalg.svd(wanted.reshape(len(wanted), -1), full_matrices=False)
            rank = len(out[f"{UNET}{name}.lora_down.weight"])
            share = np.cumsum(s**2) / np.sum(s**2)
            assert rank == (2 if by == "rank=2" else int(np.sum(share < 0.8)) + 1)
            wanted = ((u[:, :rank] * s[:rank]) @ vt[:rank]).reshape(wanted.shape)
        np.testing.assert_allclose(x, wanted, atol=1e-9, err_msg=name)


def test_a_pattern_takes_the_bias_along(tmp_path: Path) -> None:
    out = saved(tmp_path, 'save a["*proj"] to "out.safetensors" with dtype=f64\n')
    assert out.keys() == {f"{UNET}proj.diff", f"{UNET}proj.diff_b"}


def test_ties_by_entries(tmp_path: Path) -> None:
    """A method on each element is the same on a weight and on the LoRA that does the same."""
    text = 'save ties([a, b], density=0.5, rank=5) to "out.safetensors" with dtype=f64\n'
    new = changes(saved(tmp_path, text))
    for name in ("proj", "conv", "norm1", "norm2.bias"):
        xs = np.stack([changes(tensors(seed))[name].ravel() for seed in range(2)])
        for x in xs:
            x[np.abs(x) < np.sort(np.abs(x))[len(x) // 2]] = 0
        kept = np.where(np.sign(xs) == np.sign(xs.sum(axis=0)), xs, 0)
        wanted = kept.sum(axis=0) / np.maximum(1, (kept != 0).sum(axis=0))
        np.testing.assert_allclose(new[name].ravel(), wanted, atol=1e-9, err_msg=name)


def test_other_names(tmp_path: Path) -> None:
    """From ComfyUI's names to kohya's; a bias has its module's name."""
    random = np.random.default_rng(3)
    name = "diffusion_model.blocks.0.cross_attn"
    file = {f"{name}.k.diff": random.normal(size=(4, 4)), f"{name}.k.diff_b": random.normal(size=4)}
    save_file(file, tmp_path / "w.safetensors")
    done = pem("convert", tmp_path / "w.safetensors", tmp_path / "k.safetensors", "--to", "kohya")
    assert done.code == 0, done.err
    out = load_file(tmp_path / "k.safetensors")
    other = "lora_unet_blocks_0_cross_attn_k"
    assert out.keys() == {f"{other}.diff", f"{other}.diff_b"}
    np.testing.assert_array_equal(out[f"{other}.diff_b"], file[f"{name}.k.diff_b"])


def test_the_norm_is_that_of_all(tmp_path: Path) -> None:
    saved(tmp_path, 'save a to "out.safetensors"\n')
    told = json.loads(pem("inspect", tmp_path / "a.safetensors", "--format", "json").out)
    square = sum(float(np.sum(x**2)) for x in changes(tensors(0)).values())
    assert float(told["facts"]["norm"]) == pytest.approx(square**0.5, rel=1e-3)


BAD = {
    "two of a weight": {"q.diff": (5, 6), "q.w_norm": (5,)},
    "beside a LoRA": {"q.lora_down.weight": (2, 6), "q.lora_up.weight": (5, 2), "q.diff": (5, 6)},
    "two of a bias": {"q.diff_b": (5,), "q.b_norm": (5,)},
    "another bias": {"q.diff": (5, 6), "q.diff_b": (6,)},
    "a matrix for a bias": {"q.diff_b": (5, 1)},
    "a number": {"q.diff": ()},
    "six axes": {"q.diff": (1, 1, 1, 1, 1, 1)},
    "nothing": {"q.diff": (0, 4)},
    "a module of the bias's name": {"q.diff_b": (5,), "q.bias.diff": (5,)},
}


@pytest.mark.parametrize("shapes", BAD.values(), ids=list(BAD))
def test_what_does_not_fit(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    file = {f"{UNET}{key}": np.ones(shape, "f4") for key, shape in shapes.items()}
    save_file(file, tmp_path / "a.safetensors")
    refused = error(tmp_path, 'adapter a = "a.safetensors"\nsave a to "out.safetensors"\n')
    assert refused.code == "PEM0417"


def test_alone_it_has_no_alpha(tmp_path: Path) -> None:
    file = {f"{UNET}q.diff": np.ones((2, 2), "f4"), f"{UNET}q.alpha": np.array(2, "f4")}
    save_file(file, tmp_path / "a.safetensors")
    refused = error(tmp_path, 'adapter a = "a.safetensors"\nsave a to "out.safetensors"\n')
    assert refused.code == "PEM0425"


def test_as_lycoris_has_it(tmp_path: Path) -> None:
    """The weights and biases of a model that LyCORIS merges our sum into."""
    wrapper = pytest.importorskip("lycoris.wrapper", exc_type=ImportError)
    from safetensors.torch import load_file as torch_file
    from torch import nn

    saved(tmp_path, 'save a - b / 2 to "out.safetensors" with dtype=f64\n')
    file = torch_file(tmp_path / "out.safetensors")
    kept = {key: x for key, x in file.items() if ".diff" not in key or "norm2" not in key}
    layers = {
        "q": nn.Linear(6, 5), "proj": nn.Linear(6, 5), "conv": nn.Conv2d(3, 4, 3),
        "norm1": nn.LayerNorm(6),
    }  # fmt: skip
    start = UNET.removeprefix("lycoris_")
    model = nn.ModuleDict({f"{start}{name}": layer for name, layer in layers.items()}).double()
    before = {key: x.clone() for key, x in model.state_dict().items()}
    network, _ = wrapper.create_lycoris_from_weights(1.0, "", model, weights_sd=kept)
    network.merge_to(1.0)
    wanted = changes(load_file(tmp_path / "out.safetensors"))
    for key, x in model.state_dict().items():
        module, _, end = key.removeprefix(start).partition(".")
        name = module if end == "weight" else f"{module}.bias"
        if name != "q.bias":  # ComfyUI adds that one; LyCORIS has none beside a LoRA
            change = (x - before[key]).numpy()
            np.testing.assert_allclose(change, wanted[name], atol=1e-6, err_msg=name)
