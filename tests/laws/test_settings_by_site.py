"""Weights and settings of merge methods that vary by site: each site is what the method makes of it
with the numbers that it has there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import build, delta, lora

from pemlang import PemError

SITES = {f"model.layers.{i}.{name}": (12, 20) for i in range(3) for name in ("attn.q", "mlp.up")}
HEAD = 'adapter a = "a"\nadapter b = "b"\n'
FIRST, REST = '"*.0.attn.q"', '"*.0.mlp.up", "*.1.*", "*.2.*"'


@pytest.fixture(autouse=True)
def adapters(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        lora(tmp_path / name, seed, SITES)


def built(folder: Path, expression: str) -> dict[str, np.ndarray]:
    text = f'{HEAD}save {expression} to "out" with rank=full, dtype=f32\n'
    [output] = build(folder, text).outputs
    return delta(output.path)


@pytest.mark.parametrize(
    ("call", "varied", "here", "there"),
    [
        ("ties([a, b], density=0.5, weights=[{}, 2], normalize=weights)", "weight", "0.3", "1"),
        ("ties([a, b], density={})", "density", "0.3", "0.8"),
        ("dare([a, b], density={}, seed=3)", "density", "0.3", "0.8"),
        ("breadcrumbs([a, b], density=0.5, gamma={})", "gamma", "0.1", "0.2"),
        ("della([a, b], density=0.5, epsilon={})", "epsilon", "0.1", "0.2"),
        ("slerp(a, b, t={})", "t", "0.1", "0.7"),
        ("nuslerp(a, b, weights=[1, {}])", "weight", "0.1", "0.7"),
        ("magnitude_prune([a, b], density=0.5, scale={})", "scale", "2", "-1"),
    ],
)
def test_a_number_that_varies_is_each_number_at_its_sites(
    tmp_path: Path, call: str, varied: str, here: str, there: str
) -> None:
    by_site = built(tmp_path, call.format(f"per {{ {FIRST}: {here}, else: {there} }}"))
    joined = f"join({call.format(here)}[{FIRST}], {call.format(there)}[{REST}])"
    parts = built(tmp_path, joined)
    assert by_site.keys() == parts.keys() == SITES.keys()
    for site in SITES:
        assert np.array_equal(by_site[site], parts[site]), varied


def test_a_ramp_goes_by_way_of_the_numbers_of_a_list(tmp_path: Path) -> None:
    eased = built(tmp_path, "ramp([1, 0.2, 0.4]) * a")
    whole = built(tmp_path, "a + 0 * b")
    for site, change in whole.items():
        by = {"0": 1, "1": 0.2, "2": 0.4}[site.split(".")[2]]
        assert np.allclose(eased[site], by * change, atol=1e-6)


@pytest.mark.parametrize("schedule", ["ramp(0, 1)", "steps([0, 0.5, 1])"])
def test_a_row_of_per_can_be_a_schedule_by_depth_in_the_adapter(
    tmp_path: Path, schedule: str
) -> None:
    rows = f'"*.1.attn.*": {schedule}, "*.2.attn.*": {schedule}, else: 0.25'
    eased = built(tmp_path, f"per {{ {rows} }} * a")
    whole = built(tmp_path, "a + 0 * b")
    for site, change in whole.items():
        layer = int(site.split(".")[2])
        by = layer / 2 if "attn" in site and layer else 0.25
        assert np.allclose(eased[site], by * change, atol=1e-6)


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ('ties([a, b], density=per { "*.attn.*": 0, else: 1 })', "PEM0326"),
        ('karcher([a, b], weights=[per { "*.attn.*": -1, else: 1 }, 1])', "PEM0330"),
        ("ramp([1])  * a", "PEM0322"),
        ("ramp(1) * a", "PEM0322"),
        ("ramp([1, 2], 3) * a", "PEM0322"),
    ],
)
def test_a_schedule_is_held_to_what_a_number_is(tmp_path: Path, expression: str, code: str) -> None:
    with pytest.raises(PemError) as caught:
        built(tmp_path, expression)
    assert {d.code for d in caught.value.diagnostics} == {code}


def test_the_rank_is_asked_for_once_a_call(tmp_path: Path) -> None:
    text = f'{HEAD}save ties([a, b], density=ramp(0.2, 0.9)) to "out"\n'
    with pytest.raises(PemError) as caught:
        build(tmp_path, text)
    assert [d.code for d in caught.value.diagnostics] == ["PEM0349"]
