"""Patterns of configs, held to Python's own engine; and those that it would never be done with."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pemlang.formats import BadPattern, Pattern

# As trainers write them: unsloth, ColPali, ms-swift, LLaMA-Factory, and what their users do.
HONEST = [
    r"(?:.*?(?:vision|image|visual|patch|language|text).*?(?:self_attn|attention|attn|mlp|"
    r"feed_forward|ffn|dense).*?(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj).*?)|"
    r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\."
    r"(?:(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)))",
    r"(?:(?:.*?(?:vision|image|visual|patch|language|text).*?(?:self_attn|attn|mixer|mlp).*?"
    r"(?:q_proj|v_proj|down_proj))|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attn|mixer|mlp)\."
    r"(?:(?:q_proj|v_proj|down_proj))))|(?:.*?\b(?:embed_vision\.embedding_projection"
    r"|vision_tower\.patch_embedder\.input_proj)(?:\.linear)?)",
    r"(?:(?!x)x)|(?:.*?\bvision_tower\..*?(?:q_proj|post)(?:\.linear)?)",
    r"(.*(language_model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|"
    r".*(custom_text_proj).*$)",
    r"^(language_model|model)(?!.*(lm_head|output|emb|wte|shared)).*",
    r"^(?!.*patch_embed)(?!.*visual).*(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj).*",
    r"^(?=.*self_attn)(?!.*visual).*\.(q|k|v)_proj$",
    r".*\.layers\.(?:[0-9]|1[0-5])\.self_attn\.[qkv]_proj",
    r".*decoder.*(SelfAttention|EncDecAttention).*(q|v)$",
    r"(?i).*(Q|V)_proj",
    r"(.*\.)?([a-z]+)_attn\.\2_proj|.*q_proj",
]
NAMES = [
    f"{tower}.layers.{layer}.{block}.{name}"
    for tower in ("model", "language_model.model", "visual", "model.vision_tower", "decoder")
    for layer in (0, 9, 15, 31)
    for block in ("self_attn", "mlp", "SelfAttention")
    for name in ("q_proj", "v_proj", "down_proj", "lm_head", "q", "v")
]
NAMES += ["custom_text_proj", "model.visual.patch_embed.proj", "q_proj", "modèle.layers.0.q_proj"]

HOSTILE = [
    "(|a)" * 40 + "b",
    "(?:a|aa)" * 35 + "b",
    "(a|a)" * 40 + "b",
    r"\.*\.*\.*b",
    "(a+)+b",
    "(a*)*b",
    "(.*)*b",
    "a?" * 40 + "a" * 40 + "b",
    "(((a{0,100}){0,100}){0,100})b",
    ".*" * 60 + "b",
]
TRIED = ["(?!b)(?:a|aa)+$", "(?!b)(a|a)+$", "(a|aa)+(?!c)$", r"(?=(a+))(?:a|aa|\1)+$"]


@pytest.mark.parametrize("pattern", HONEST)
def test_honest_patterns_match_as_in_python(pattern: str) -> None:
    ours, python = Pattern(pattern), re.compile(pattern)
    wanted = {name for name in NAMES if python.fullmatch(name)}
    assert wanted
    assert {name for name in NAMES if ours.match(name, whole=True)} == wanted


@pytest.mark.parametrize("pattern", HOSTILE)
def test_what_python_would_try_for_ever_is_soon_done(pattern: str) -> None:
    try:
        compiled = Pattern(pattern, r"(.*\.)?(%)$")
    except BadPattern as why:
        assert "too large" in str(why)  # or it matches
        return
    for name in ("a" * 40, "." * 470, "a" * 470, "a." * 235):
        assert compiled.match(name) is None


@pytest.mark.parametrize("pattern", TRIED)
def test_what_only_trying_knows_is_given_up(pattern: str) -> None:
    compiled = Pattern(pattern)
    with pytest.raises(BadPattern, match="takes too long"):
        compiled.match("a" * 60 + "c", whole=True)


# What other engines take for something else: classes by name, octal numbers, mistakes allowed.
MEANT = [
    ("[a[:digit:]]x", ["3x", "d]x", ":]x"]),
    ("(a)(b)(c)(d)(e)(f)(g)(h)(i)(j)\\10", ["abcdefghijj", "abcdefghij\b"]),
    ("(?=.)a{1<=e<=3}", ["bc", "a{1<=e<=3}"]),
    ("(?=.)(?:abc){2i+2d<4}", ["ab", "abc{2i+2d<4}"]),
    ("a{,2}b", ["aab", "a{,2}b", "b"]),
    ("a{0,2000}b", ["a" * 1500 + "b", "a" * 2001 + "b"]),
    (r"\N{LATIN SMALL LETTER Q}_proj", ["q_proj", "k_proj"]),
    (r"\\[[]q", ["\\[q", "[q"]),
    (r"[\]a-c-]+", ["]-b", "d"]),
    (r"(?x) q _ proj  # the queries", ["q_proj", "q _ proj"]),
    (r"\Aq\Z|(?m:^k$)", ["q", "k", "q\n", "k\nq"]),
    (r"(?i:Q)(?-i:_)P", ["q_P", "Q_p"]),
]


@pytest.mark.parametrize(("pattern", "names"), MEANT)
def test_what_engines_disagree_on_is_as_in_python(pattern: str, names: list[str]) -> None:
    ours, python = Pattern(pattern), re.compile(pattern)
    for name in names:
        assert bool(ours.match(name, whole=True)) == bool(python.fullmatch(name)), name


def _patterns() -> st.SearchStrategy[str]:
    """Patterns of what people write, small enough for Python to try all ways."""
    letters = st.sampled_from(
        ["a", "b", "_", r"\.", ".", r"\d", r"\w", "[ab]", "[^a.]", r"\b", "0"]
    )
    counts = st.sampled_from(["*", "+", "?", "*?", "+?", "{2}", "{1,2}", "{,2}", "{1,}"])
    groups = st.sampled_from(["(%)", "(?:%)", "(?P<n>%)", "(?=%)", "(?!%)", "(?<!a)(?:%)"])

    def more(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.lists(inner, min_size=1, max_size=3).map("".join),
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
            st.tuples(groups, inner).map(lambda pair: pair[0].replace("%", pair[1])),
            st.tuples(inner, counts).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
        )

    whole = st.recursive(letters, more, max_leaves=6)
    ends = st.sampled_from(["%", "^%$", r"%\Z", "%|a", "(?i)%"])
    return st.tuples(ends, whole).map(lambda pair: pair[0].replace("%", pair[1]))


@settings(deadline=None, max_examples=400)
@given(_patterns(), st.text("ab._0A é\n", max_size=8), st.booleans())
def test_any_pattern_matches_as_in_python(pattern: str, name: str, whole: bool) -> None:
    try:
        python = re.compile(pattern)
    except re.error:
        with pytest.raises(BadPattern):
            Pattern(pattern)
        return
    found = (python.fullmatch if whole else python.match)(name)
    ours = Pattern(pattern).match(name, whole)
    assert (found is None) == (ours is None)
    if found is not None and ours is not None:
        assert ours[0] == found[0]
