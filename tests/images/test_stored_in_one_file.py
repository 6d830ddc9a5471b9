"""LoHa, LoKr and LoCon of image models: Δ as their formulas have it, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import pem
from support.image_loras import product

SITE = "lora_unet_mid_block_attentions_0_proj"
Arrays = Mapping[str, np.ndarray]


def kron(x: Arrays, second: np.ndarray) -> np.ndarray:
    """w1 ⊗ w2, a kernel beside the inputs of w2."""
    first = x["lokr_w1"] if "lokr_w1" in x else x["lokr_w1_a"] @ x["lokr_w1_b"]
    kernel = second.shape[2:]
    whole = np.einsum("lm,kn...->lkmn...", first, second)
    rows, columns = (first.shape[axis] * second.shape[axis] for axis in (0, 1))
    return whole.reshape(rows, columns, *kernel)


def tucker(core: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.einsum("ijhw,io,jc->ochw", core, left, right)


FORMS: dict[str, tuple[dict[str, tuple[int, ...]], Callable[[Arrays], np.ndarray], int | None]] = {
    "LoHa": (
        {"hada_w1_a": (9, 2), "hada_w1_b": (2, 8), "hada_w2_a": (9, 2), "hada_w2_b": (2, 8)},
        lambda x: (x["hada_w1_a"] @ x["hada_w1_b"]) * (x["hada_w2_a"] @ x["hada_w2_b"]),
        2,
    ),
    "LoHa of a kernel": (
        {"hada_w1_a": (2, 9), "hada_w1_b": (2, 4), "hada_t1": (2, 2, 3, 3),
         "hada_w2_a": (2, 9), "hada_w2_b": (2, 4), "hada_t2": (2, 2, 3, 3)},
        lambda x: tucker(x["hada_t1"], x["hada_w1_a"], x["hada_w1_b"])
        * tucker(x["hada_t2"], x["hada_w2_a"], x["hada_w2_b"]),
        2,
    ),
    "LoKr": (
        {"lokr_w1": (3, 2), "lokr_w2_a": (3, 2), "lokr_w2_b": (2, 4)},
        lambda x: kron(x, x["lokr_w2_a"] @ x["lokr_w2_b"]),
        2,
    ),
    "LoKr, whole": (
        {"lokr_w1": (3, 2), "lokr_w2": (3, 4)}, lambda x: kron(x, x["lokr_w2"]), None
    ),
    "LoKr of a kernel": (
        {"lokr_w1_a": (3, 1), "lokr_w1_b": (1, 2),
         "lokr_w2_a": (1, 3), "lokr_w2_b": (1, 4), "lokr_t2": (1, 1, 3, 3)},
        lambda x: kron(x, tucker(x["lokr_t2"], x["lokr_w2_a"], x["lokr_w2_b"])),
        1,
    ),
    "LoCon": (
        {"lora_down.weight": (2, 4, 1, 1), "lora_mid.weight": (2, 2, 3, 3),
         "lora_up.weight": (9, 2, 1, 1)},
        lambda x: tucker(
            x["lora_mid.weight"], x["lora_up.weight"][:, :, 0, 0].T,
            x["lora_down.weight"][:, :, 0, 0],
        ),
        2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("alpha", [None, 3.0])
@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_a_sum_is_that_of_the_formulas(
    form: tuple[dict[str, tuple[int, ...]], Callable[[Arrays], np.ndarray], int | None],
    alpha: float | None,
    tmp_path: Path,
) -> None:
    shapes, delta, rank = form
    random = np.random.default_rng(5)
    wanted = 0.0
    for name, weight in (("a", 1.0), ("b", -0.5)):
        tensors = {key: random.normal(size=shape) for key, shape in shapes.items()}
        scale = 1.0 if alpha is None or rank is None else alpha / rank
        wanted = wanted + weight * scale * delta(tensors)
        told = {} if alpha is None else {f"{SITE}.alpha": np.array(alpha, "f4")}
        file = {f"{SITE}.{key}": x for key, x in tensors.items()} | told
        save_file(file, tmp_path / f"{name}.safetensors")
    (tmp_path / "r.pem").write_text(
        'adapter a = "a.safetensors"\nadapter b = "b.safetensors"\n'
        'save a - 0.5 * b to "out.safetensors" with dtype=f64\n'
    )
    done = pem("build", tmp_path / "r.pem")
    assert done.code == 0, done.text
    made = load_file(tmp_path / "out.safetensors")
    down, up = made[f"{SITE}.lora_down.weight"], made[f"{SITE}.lora_up.weight"]
    assert down.shape[1:] == wanted.shape[1:]
    ours = product(down, up) * float(made[f"{SITE}.alpha"]) / len(down)
    assert np.allclose(ours.reshape(wanted.shape), wanted, rtol=1e-6, atol=1e-9)
