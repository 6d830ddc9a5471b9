"""Two adapters compared: against dense Δ in float64, formed here from the files; and shown."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from support import PREFIX, config_of, ia3, lora, save, tensors_of

from pemlang.compare.compare import Comparison, SiteChange, compare
from pemlang.diagnostics import Fault
from pemlang.show.compare_show import as_html, as_json, as_markdown, as_text

Dense = dict[str, NDArray[np.float64]]

LINEAR, CONV, EMBEDDING = "layers.0.q_proj", "layers.0.conv", "wte"


def mixed(
    at: Path, seed: int, rank: int = 3, alpha: float = 6, dtype: str = "f4", **config: Any
) -> Path:
    """A LoRA with a Linear, a Conv2d and an Embedding site."""
    rng = np.random.default_rng(seed)
    shapes = {
        f"{LINEAR}.lora_A.weight": (rank, 10),
        f"{LINEAR}.lora_B.weight": (7, rank),
        f"{CONV}.lora_A.weight": (rank, 4, 3, 2),
        f"{CONV}.lora_B.weight": (8, rank, 1, 1),
        f"{EMBEDDING}.lora_embedding_A": (rank, 30),
        f"{EMBEDDING}.lora_embedding_B": (6, rank),
    }
    tensors = {PREFIX + key: rng.normal(size=shape).astype(dtype) for key, shape in shapes.items()}
    fields = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": ["q_proj", "conv", "wte"],
        "base_model_name_or_path": "some/base",
    }
    return save(at, tensors, fields | config)


def dense(at: Path) -> Dense:
    """Δ as matrices, or l − 1, from the tensors."""
    tensors = {
        key.removeprefix(PREFIX): value.astype(np.float64)
        for key, value in load_file(at / "adapter_model.safetensors").items()
    }
    config, found = config_of(at), {}
    for key, a in tensors.items():
        if key.endswith(".ia3_l"):
            found[key.removesuffix(".ia3_l")] = a - 1
        elif "_A" in key:
            b = tensors[key.replace("_A", "_B")]
            flat = b.reshape(len(b), -1) @ a.reshape(len(a), -1)
            site = re.sub(r"\.lora_(embedding_)?A(\.weight)?$", "", key)
            found[site] = config["lora_alpha"] / len(a) * flat
    return found


def cosine(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(np.sum(x * y) / (np.linalg.norm(x) * np.linalg.norm(y)))


def by_site(found: Comparison) -> dict[str, SiteChange]:
    return {site.site: site for site in found.sites}


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-9)


def check(old: Path, new: Path) -> Comparison:
    """All numbers of a comparison of adapters with the same sites, against dense ones."""
    found = compare(str(old), str(new))
    one, two = dense(old), dense(new)
    sites = by_site(found)
    assert sites.keys() == one.keys() == two.keys()
    pairs = {site: (one[site], two[site]) for site in one}
    flat = [np.concatenate([x[site].ravel() for site in one]) for x in (one, two)]
    for measured, x, y in [
        *((sites[site].measured, *pair) for site, pair in pairs.items()),
        (found.total, *flat),
    ]:
        assert measured.old == near(float(np.linalg.norm(x)))
        assert measured.new == near(float(np.linalg.norm(y)))
        assert measured.change == near(float(np.linalg.norm(y - x)))
        assert measured.relative == near(float(np.linalg.norm(y - x) / np.linalg.norm(x)))
        assert measured.cosine == near(cosine(x, y))
    for site, pair in pairs.items():
        for values, x in zip(sites[site].spectra, pair, strict=True):
            wanted = np.linalg.svd(x, compute_uv=False)[: len(values)] if len(values) else []
            np.testing.assert_allclose(values, wanted, rtol=1e-9, atol=1e-12 * np.abs(x).max())
    return found


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("ranks", [(3, 3), (2, 5), (5, 2), (9, 8)])
def test_loras_of_any_rank_and_scale(tmp_path: Path, ranks: tuple[int, int], dtype: str) -> None:
    old = mixed(tmp_path / "old", 1, ranks[0], alpha=6, dtype=dtype)
    new = mixed(tmp_path / "new", 2, ranks[1], alpha=16, dtype=dtype)
    found = check(old, new)
    assert {site.state for site in found.sites} == {"changed"}
    assert by_site(found)[LINEAR].ranks == ranks
    assert by_site(found)[LINEAR].scales == (6 / ranks[0], 16 / ranks[1])
    assert len(by_site(found)[LINEAR].spectra[0]) == min(ranks[0], 7)
    shown = {fact.label: (fact.old, fact.new) for fact in found.facts if fact.old != fact.new}
    assert ("rank" in shown) == (ranks[0] != ranks[1])
    assert "scale" in shown


def test_gains(tmp_path: Path) -> None:
    found = check(ia3(tmp_path / "old", 1), ia3(tmp_path / "new", 2))
    assert {site.spectra for site in found.sites} == {((), ())}
    assert {site.ranks for site in found.sites} == {(None, None)}


def test_identical_adapters(tmp_path: Path) -> None:
    for make in (mixed, ia3):
        old, new = make(tmp_path / make.__name__, 1), make(tmp_path / f"{make.__name__}2", 1)
        found = compare(str(old), str(new))
        assert found.same
        for measured in (found.total, *(site.measured for site in found.sites)):
            assert (measured.change, measured.relative, measured.cosine) == (0.0, 0.0, 1.0)
        assert "4 same" in as_text(found) or "3 same" in as_text(found)


@pytest.mark.parametrize("factor", ["A", "B", "AB"])
@pytest.mark.parametrize("size", [1e-7, 1e-11])
def test_tiny_differences_keep_their_digits(tmp_path: Path, factor: str, size: float) -> None:
    """Against Δ in longdouble: float64 would lose the digits that are tested."""
    rng = np.random.default_rng(3)
    old = mixed(tmp_path / "old", 1, dtype="f8")
    tensors = {key: value.numpy() for key, value in tensors_of(old).items()}
    moved = {
        key: x + size * rng.normal(size=x.shape) * any(f"_{one}" in key for one in factor)
        for key, x in tensors.items()
    }
    new = save(tmp_path / "new", moved, config_of(old))
    found = by_site(compare(str(old), str(new)))[LINEAR].measured

    def delta(x: dict[str, NDArray[np.float64]]) -> NDArray[Any]:
        b, a = (x[f"{PREFIX}{LINEAR}.lora_{f}.weight"].astype(np.longdouble) for f in "BA")
        return 2 * b @ a

    change = float(np.sqrt(np.sum((delta(moved) - delta(tensors)) ** 2)))
    assert found.change == pytest.approx(change, rel=1e-15 / size)
    assert found.cosine == pytest.approx(1, abs=1e-12)


def test_one_function_of_other_factors(tmp_path: Path) -> None:
    """Zero rows, and a scale moved into B, change nothing; factors mixed among each other, no
    more than float64 rounds."""
    old = mixed(tmp_path / "old", 1, rank=2, alpha=4, dtype="f8")
    tensors = {key: value.numpy() for key, value in tensors_of(old).items()}

    def with_zeros(key: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
        axis = 0 if "_A" in key else 1
        twice = x if "_A" in key else 4 * x
        return np.concatenate([twice, np.zeros_like(x)], axis)

    wide = save(
        tmp_path / "wide",
        {key: with_zeros(key, x) for key, x in tensors.items()},
        config_of(old) | {"r": 4, "lora_alpha": 2},
    )
    found = compare(str(old), str(wide))
    assert {site.state for site in found.sites} == {"same"} and not found.same
    assert found.total.change == 0

    turn = np.array([[1.0, 2.0], [0.5, -1.0]])
    turned = {
        key: np.einsum("ij,j...->i...", turn, x)
        if "_A" in key
        else np.einsum("oj...,ji->oi...", x, np.linalg.inv(turn))
        for key, x in tensors.items()
    }
    found = compare(str(old), str(save(tmp_path / "turned", turned, config_of(old))))
    assert found.total.relative is not None and found.total.relative < 1e-14
    assert found.total.cosine == pytest.approx(1, abs=1e-14)


def test_added_and_removed_sites_are_zero_elsewhere(tmp_path: Path) -> None:
    old = lora(tmp_path / "old", 1, {"layer.0.q": (5, 6), "layer.1.q": (5, 6)}, rank=2)
    new = lora(tmp_path / "new", 2, {"layer.1.q": (5, 6), "layer.2.q": (7, 6)}, rank=2)
    found = compare(str(old), str(new))
    one, two = dense(old), dense(new)
    removed, changed, added = found.sites
    assert (removed.state, changed.state, added.state) == ("removed", "changed", "added")
    assert removed.measured.change == near(float(np.linalg.norm(one["layer.0.q"])))
    assert (removed.measured.new, removed.measured.relative) == (0.0, near(1))
    assert added.measured.change == near(float(np.linalg.norm(two["layer.2.q"])))
    assert (added.measured.old, added.measured.relative) == (0.0, None)
    assert added.measured.cosine is None
    assert added.ranks == (None, 2) and added.spectra[0] == ()
    np.testing.assert_allclose(
        added.spectra[1], np.linalg.svd(two["layer.2.q"], compute_uv=False)[:2]
    )
    norms = [site.measured.change for site in found.sites]
    assert found.total.change == near(float(np.linalg.norm(norms)))  # type: ignore[arg-type]
    between = np.sum(one["layer.1.q"] * two["layer.1.q"])
    assert found.total.cosine == near(float(between) / (found.total.old * found.total.new))
    assert re.search(r"layer\.2\.q +added .* new ", as_text(found))


def test_a_zero_adapter(tmp_path: Path) -> None:
    new = mixed(tmp_path / "new", 1)
    nothing = {k: x * ("_A" in k) for k, x in tensors_of(new).items()}
    zero = save(tmp_path / "zero", nothing, config_of(new))
    found = compare(str(zero), str(new))
    assert (found.total.old, found.total.relative, found.total.cosine) == (0.0, None, None)
    assert "old is zero" in as_text(found)
    back = compare(str(new), str(zero)).total
    assert (back.new, back.relative, back.cosine) == (0.0, near(1), None)
    both = compare(str(zero), str(zero))
    assert both.same and (both.total.relative, both.total.cosine) == (0.0, None)


@pytest.mark.parametrize("swap", [False, True])
def test_one_far_smaller_than_the_other(tmp_path: Path, swap: bool) -> None:
    large = mixed(tmp_path / "large", 1, 3, dtype="f8")
    tensors = tensors_of(mixed(tmp_path / "other", 2, 4, dtype="f8"))
    small = save(
        tmp_path / "small",
        {key: x * (1e-20 if "_B" in key else 1) for key, x in tensors.items()},
        config_of(tmp_path / "other"),
    )
    check(*((small, large) if swap else (large, small)))


def test_sites_of_two_shapes_are_left_out_of_the_total(tmp_path: Path) -> None:
    old = lora(tmp_path / "old", 1, {"layer.0.q": (5, 6), "layer.1.q": (5, 6)}, rank=2)
    new = lora(tmp_path / "new", 2, {"layer.0.q": (5, 6), "layer.1.q": (5, 8)}, rank=2)
    found = compare(str(old), str(new))
    fine, apart = found.sites
    assert (apart.state, apart.note) == ("incomparable", "linear 5×6 against linear 5×8")
    assert apart.measured.change is None
    assert apart.measured.new == near(float(np.linalg.norm(dense(new)["layer.1.q"])))
    assert found.total == fine.measured
    assert "without 1 incomparable" in as_text(found)
    alone = compare(
        str(lora(tmp_path / "o", 1, {"q": (5, 6)})), str(lora(tmp_path / "n", 1, {"q": (5, 8)}))
    )
    assert alone.total.change is None and "no site can be compared" in as_text(alone)


def test_kernels_of_one_size_and_two_shapes(tmp_path: Path) -> None:
    def conv(at: Path, kernel: tuple[int, int]) -> Path:
        tensors = {
            f"{PREFIX}conv.lora_A.weight": np.ones((2, 4, *kernel), "f4"),
            f"{PREFIX}conv.lora_B.weight": np.ones((5, 2, 1, 1), "f4"),
        }
        return save(at, tensors, {"peft_type": "LORA", "r": 2, "lora_alpha": 2})

    found = compare(str(conv(tmp_path / "a", (3, 1))), str(conv(tmp_path / "b", (1, 3))))
    assert found.sites[0].note == "conv2d 5×12 with A of [4, 3, 1] against [4, 1, 3]"


# --- facts and heads ----------------------------------------------------------------------------


def test_facts_that_changed(tmp_path: Path) -> None:
    old = mixed(tmp_path / "old", 1)
    new = mixed(
        tmp_path / "new", 1, 4, 8, "f2", base_model_name_or_path="an/other", fan_in_fan_out=True
    )
    changed = {f.label: (f.old, f.new) for f in compare(str(old), str(new)).facts if f.old != f.new}
    assert changed == {
        "base": ("some/base", "an/other"),
        "rank": ("3", "4"),
        "dtype": ("f32", "f16"),
        "parameters": ("255", "340"),
        "fan_in_fan_out": ("no", "yes"),
    }


def test_ranks_that_changed_places_are_told(tmp_path: Path) -> None:
    sites = {"layer.0.q": (5, 6), "layer.1.q": (5, 6)}
    old = lora(tmp_path / "old", 1, sites, rank={"layer.0.q": 2, "layer.1.q": 3})
    new = lora(tmp_path / "new", 1, sites, rank={"layer.0.q": 3, "layer.1.q": 2})
    facts = {fact.label: fact for fact in compare(str(old), str(new)).facts}
    assert facts["rank"].new == "2 at 1 sites, 3 at 1 sites (not the same at 2 sites)"


def test_heads_are_compared_by_their_bytes(tmp_path: Path) -> None:
    def heads(moved: float, *more: str) -> dict[str, Any]:
        one, two = torch.ones(2, 3), torch.ones(2, 3)
        two[1, 2] = moved
        found = {f"{PREFIX}score.weight": one, f"{PREFIX}other.weight": two}
        return found | {f"{PREFIX}{key}": torch.zeros(4) for key in more}

    old = lora(tmp_path / "old", 1, extra=heads(1, "gone.bias"))
    new = lora(tmp_path / "new", 1, extra=heads(1.0000001, "fresh.bias"))
    found = compare(str(old), str(new))
    assert [(head.key, head.state) for head in found.heads] == [
        (f"{PREFIX}fresh.bias", "added"),
        (f"{PREFIX}gone.bias", "removed"),
        (f"{PREFIX}other.weight", "changed"),
        (f"{PREFIX}score.weight", "same"),
    ]
    assert not found.same and {site.state for site in found.sites} == {"same"}
    text = as_text(found)
    assert "f32 [2, 3] → f32 [2, 3], other numbers" in text
    assert "none → f32 [4]" in text and "score" not in text


# --- what goes wrong ----------------------------------------------------------------------------


def fault(old: Path, new: Path) -> Fault:
    with pytest.raises(Fault) as caught:
        compare(str(old), str(new))
    return caught.value


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite(tmp_path: Path, bad: float) -> None:
    old = mixed(tmp_path / "old", 1)
    tensors = tensors_of(old)
    tensors[f"{PREFIX}{CONV}.lora_B.weight"][1, 1] = bad
    found = fault(old, save(tmp_path / "new", tensors, config_of(old)))
    assert found.code == "PEM0502" and "new" in found.message


def test_what_is_too_large_to_measure(tmp_path: Path) -> None:
    old = mixed(tmp_path / "old", 1, dtype="f8")
    large = {key: 1e200 * value for key, value in tensors_of(old).items()}
    assert fault(old, save(tmp_path / "new", large, config_of(old))).code == "PEM0503"


def test_two_methods(tmp_path: Path) -> None:
    found = fault(mixed(tmp_path / "a", 1), ia3(tmp_path / "b", 1))
    assert found.code == "PEM0304" and "is LoRA and" in found.message


def test_no_adapter(tmp_path: Path) -> None:
    assert fault(mixed(tmp_path / "a", 1), tmp_path / "nowhere").code == "PEM0410"


# --- renderings ---------------------------------------------------------------------------------


def many(tmp_path: Path) -> Comparison:
    sites = {f"layer.{i}.q": (5, 6) for i in range(14)}
    return compare(
        str(lora(tmp_path / "old", 1, sites, rank=2)), str(lora(tmp_path / "new", 2, sites, rank=4))
    )


def test_text_shows_the_worst_sites_first(tmp_path: Path) -> None:
    found = many(tmp_path)
    text = as_text(found)
    order = sorted(found.sites, key=lambda site: -(site.measured.change or 0))
    shown = re.findall(r"^(layer\.\d+\.q) ", text, re.MULTILINE)
    assert shown == [site.site for site in order[:10]]
    assert text.endswith("and 4 more that changed")
    assert "LoRA, 14 sites: 14 changed" in text and "rank " in text
    assert "\x1b" not in text
    coloured = as_text(found, colour=True)
    assert "\x1b" in coloured and re.sub(r"\x1b\[[\d;]*m", "", coloured) == text


def test_markdown_and_html_show_them_too(tmp_path: Path) -> None:
    found = many(tmp_path)
    text = as_markdown(found)
    assert len(re.findall(r"^\| `layer\.\d+\.q` ", text, re.MULTILINE)) == 10
    assert "and 4 more that changed" in text and "| `rank` | `2` | `4` |" in text
    assert as_html(found).count('<th scope="row">layer.') == 14


def test_json_holds_everything(tmp_path: Path) -> None:
    found = many(tmp_path)
    data = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert len(data["sites"]) == 14 and data["method"] == "lora" and data["same"] is False
    site = data["sites"][0]
    assert (site["site"], site["state"], site["ranks"]) == ("layer.0.q", "changed", [2, 4])
    assert site["measured"]["change"] == found.sites[0].measured.change
    assert len(site["spectra"][1]) == 4
    assert data["total"]["cosine"] == found.total.cosine


HOSTILE = (
    "<script>alert(1)</script>.q",
    "a | b | c.q",
    r"a \| b.q",
    "`tick` ``two``.q",
    "[x](javascript:alert(1)).q",
    '" onmouseover="alert(1).q',
    "\u202eright\x1b[2J.q",
)


def hostile(tmp_path: Path) -> Comparison:
    def made(name: str, seed: int, base: str) -> Path:
        head = {f"{PREFIX}head\n# <b>|`x`\x1b[31m.weight": torch.full((1, 2), float(seed))}
        sites = dict.fromkeys(HOSTILE, (3, 4))
        config: dict[str, Any] = {"target_modules": ..., "base_model_name_or_path": base}
        return lora(tmp_path / name, seed, sites, rank=1, extra=head, **config)

    return compare(
        str(made("<i>o|d\n</i>", 1, "some/base")), str(made("n`e`w", 2, "<img src=x>|\n- x"))
    )


class _Page(html.parser.HTMLParser):
    """The tags and attributes of a fragment, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_names_are_no_html(tmp_path: Path) -> None:
    page = _Page()
    page.feed(as_html(hostile(tmp_path)))
    tables = {"table", "thead", "tbody", "tr", "th", "td"}
    assert page.tags == {"section", "h2", "p"} | tables
    assert page.attributes <= {"class", "scope", "colspan"}
    for name in HOSTILE[:-1]:
        assert name in page.text
    assert "\x1b" not in page.text and "\u202e" not in page.text


def test_hostile_names_are_no_markdown(tmp_path: Path) -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark", {"html": True})
    page = _Page()
    page.feed(markdown.enable("table").render(as_markdown(hostile(tmp_path))))
    tables = {"table", "thead", "tbody", "tr", "th", "td"}
    assert page.tags <= {"h3", "p", "ul", "li", "code"} | tables
    assert page.attributes == set()
    for name in HOSTILE[:-1]:
        assert name in page.text
    rows = [line for line in as_markdown(hostile(tmp_path / "2")).splitlines() if "changed" in line]
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 9 for row in rows[1:])


def test_hostile_names_are_no_terminal_codes(tmp_path: Path) -> None:
    text = as_text(hostile(tmp_path))
    assert "\x1b" not in text and "\u202e" not in text
    assert re.search(r"^head .*head\\u000a# <b>", text, re.MULTILINE)
    assert len(text.splitlines()) == 3 + 5 + 2 + len(HOSTILE)


def test_a_field_of_the_config_that_changed_is_no_same(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1, task_type="CAUSAL_LM")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    config = tmp_path / "b/adapter_config.json"
    config.write_text(config.read_text().replace("CAUSAL_LM", "SEQ_CLS"))
    found = compare(str(tmp_path / "a"), str(tmp_path / "b"))
    assert not found.same
    assert ("task_type", '"CAUSAL_LM"', '"SEQ_CLS"') in [
        (fact.label, fact.old, fact.new) for fact in found.facts
    ]
