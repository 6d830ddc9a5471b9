"""The steps that make factors of what a file stores: what they compute, held to what they mean."""

from __future__ import annotations

import numpy as np
import pytest

from pemlang.kernels import Builder, computed, meaning

CASES = {
    "a diagonal": ("re,rc->rc", ((4, 1), (4, 7)), (4, 7)),
    "rows, each with each": ("ic,jc->ijc", ((3, 7), (4, 7)), (12, 7)),
    "a Kronecker product": ("rm,sn->rsmn", ((3, 2), (4, 5)), (12, 10)),
    "a matrix product": ("or,rc->oc", ((6, 3), (3, 9)), (6, 9)),
    "a kernel": ("ijhw,jc->ichw", ((3, 3, 2, 5), (3, 4)), (3, 40)),
    "a transpose": ("ro->or", ((3, 6),), (6, 3)),
}


@pytest.mark.parametrize("dtype", ["F32", "F64"])
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_an_einsum_is_what_it_means(
    case: tuple[str, tuple[tuple[int, ...], ...], tuple[int, ...]], dtype: str
) -> None:
    subscripts, shapes, shape = case
    random = np.random.default_rng(2)
    arrays = [random.normal(size=size).astype("f4" if dtype == "F32" else "f8") for size in shapes]
    builder: Builder[int, int] = Builder()
    values = [builder.load(number, dtype, size) for number, size in enumerate(shapes)]
    builder.store(builder.einsum(subscripts, values, shape), 0, dtype)
    [call] = builder.calls()
    ordered = [arrays[number] for number in call.inputs]
    [ours] = computed(call.program, ordered, call.constants)
    [meant] = meaning(call.program, [x.astype("f8") for x in ordered], call.constants)
    assert ours.dtype == arrays[0].dtype
    assert ours.shape == meant.shape == shape
    assert np.allclose(ours, meant, rtol=1e-5 if dtype == "F32" else 1e-13, atol=1e-6)
    direct = np.einsum(subscripts, *(x.astype("f8") for x in arrays)).reshape(shape)
    assert np.array_equal(meant, direct)


def test_an_identity_has_ones_where_its_rows_meet_its_columns() -> None:
    builder: Builder[int, int] = Builder()
    builder.store(builder.identity((6, 2, 3), "F32"), 0, "F32")
    [call] = builder.calls()
    for outputs in (
        computed(call.program, [], call.constants),
        meaning(call.program, [], call.constants),
    ):
        assert np.array_equal(outputs[0], np.eye(6).reshape(6, 2, 3))
