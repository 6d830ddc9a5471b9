"""What `save … with …` may say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from pemlang.check.annotations import dtype_name
from pemlang.check.kinds import article
from pemlang.check.values import Declared, RecipeValue
from pemlang.diagnostics import Fault, listed, nearest, visible
from pemlang.formats.readers import READERS, OutputReader
from pemlang.formats.record import Format, formats_of
from pemlang.formats.transformers import last_token, token_rows, tokenizer_files
from pemlang.graph.leaves import Leaf, Model, Stored
from pemlang.graph.node import ModelNode
from pemlang.graph.numbers import amount_of
from pemlang.ops.use import after, replaced
from pemlang.ops.vocabulary import vocabulary_of
from pemlang.syntax import tree as t

OPTIONS: Mapping[str, Sequence[str]] = {
    "rank": ("adapter",),
    "energy": ("adapter",),
    "dtype": ("adapter", "model"),
    "heads": ("adapter",),
    "format": ("adapter",),
    "reader": ("adapter",),
    "shard": ("model",),
    "tokenizer": ("model",),
}
"""The options, each with what it is of."""


def says_word(tree: t.Tree, words: Collection[str], declared: Mapping[str, object]) -> bool:
    """Whether an option is one of some words, and no name of the recipe."""
    is_word = isinstance(tree, t.Name) and tree.module is None and tree.name in words
    return is_word and tree.span.text not in declared


def unknown_option(option: t.NamedArg, of: str, options: Iterable[str]) -> Fault:
    """What to say of an option that a `save`, or another statement, does not have."""
    close = nearest(option.name, options)
    return Fault(
        "PEM0340",
        f"`{of}` has no option `{visible(option.name, 40)}`",
        f"did you mean `{close}`?" if close else f"give one of {', '.join(options)}",
        place=option.name_span,
    )


def saved_with(statement: t.Save, option: str) -> str:
    """A `save` with one more option."""
    last = [after(x.span, f", {option}") for x in statement.options[-1:]]
    added = last or [after(statement.path.span, f" with {option}")]
    return replaced(statement.span, added) or f"save it with {option}"


def hold_option(option: t.NamedArg, saved: str) -> None:
    """Raise PEM0343 for an option that an `adapter` or a `model` does not have."""
    if saved not in OPTIONS[option.name]:
        [other] = OPTIONS[option.name]
        raise Fault(
            "PEM0343",
            f"`{option.name}` is an option of {other}s, and what is saved is {article(saved)}",
            f"leave {option.name}= out",
            place=option.name_span,
        )


def option_shard(text: str) -> int:
    """shard="5GB": the bytes of tensors in a file, at most; raises PEM0350."""
    size = amount_of(text)
    if not size:
        raise Fault(
            "PEM0350",
            f"{visible(text, 40)!r} is no size of a file",
            'write a number with its unit: "5GB", "500MB", or "2GiB"',
        )
    return size


def option_tokenizer(
    value: RecipeValue, text: str, saved: ModelNode, declared: Mapping[Stored, Declared]
) -> Model:
    """tokenizer=m: a model of the recipe whose tokenizer fits what is saved; raises PEM0351."""
    if not isinstance(value, Model):
        raise Fault(
            "PEM0351",
            f"`{text}` is not a declared model",
            "give the name of a model whose tokenizer to keep",
        )
    if not tokenizer_files(value.adapter):
        holders = [x.name for m, x in declared.items() if tokenizer_files(m.adapter)]
        raise Fault(
            "PEM0351",
            f"`{text}` has no tokenizer beside its weights",
            f"choose one that has: {listed(holders)}"
            if holders
            else "leave tokenizer= out: no model of the recipe has one",
        )
    last = last_token(value.adapter)
    rows = token_rows(saved.shapes)
    if last is not None and rows is not None and last >= rows:
        raise Fault(
            "PEM0351",
            f"the tokenizer of `{text}` has tokens up to number {last}, and the embedding of what "
            f"is saved has {rows} rows",
            f"choose the tokenizer of a model of {rows} tokens, or leave tokenizer= out",
        )
    if saved.joined is not None:
        ours, theirs = saved.joined.numbers, vocabulary_of(value).numbers
        moved = [token for token, number in theirs.items() if ours.get(token) != number]
        if moved:
            raise Fault(
                "PEM0351",
                f"the tokenizer of `{text}` has other numbers for tokens of what is saved: "
                f"{listed(moved)}",
                "leave tokenizer= out: an output of joined tokens has a tokenizer of all of them",
            )
    return value


def option_dtype(tree: t.Tree) -> str:
    """dtype=bf16: the word itself, not a name of the recipe."""
    return dtype_name(tree.name if isinstance(tree, t.Name) and not tree.module else tree.span.text)


def option_format(tree: t.Tree) -> Format:
    """format=kohya: the word itself, one of the formats of adapters; raises PEM0356."""
    records = {record.name: record for record in formats_of("adapter")}
    return _by_word(tree, records, "PEM0356", "no format of an adapter's files")


def option_reader(tree: t.Tree) -> OutputReader:
    """reader=vllm: the word itself, a program that loads adapters; raises PEM0366."""
    return _by_word(tree, READERS, "PEM0366", "no program whose ways are known")


ByWord = TypeVar("ByWord")


def _by_word(tree: t.Tree, records: Mapping[str, ByWord], code: str, otherwise: str) -> ByWord:
    """The record that a word names; raises Fault with the nearest name."""
    text = tree.span.text
    if text in records:
        return records[text]
    close = nearest(text, list(records))
    raise Fault(
        code,
        f"`{visible(text, 40)}` is {otherwise}",
        f"did you mean `{close}`?" if close else f"write one of {', '.join(records)}",
    )


WORDS: Mapping[str, Callable[[t.Tree], Format | OutputReader | str]] = {
    "dtype": option_dtype,
    "format": option_format,
    "reader": option_reader,
}
"""The options whose value is a word, and no expression."""


def option_heads(value: RecipeValue, text: str, declared: Mapping[Stored, Declared]) -> Leaf:
    """heads=a: one of the adapters declared in the recipe, that has heads; raises PEM0342."""
    if not isinstance(value, Leaf):
        raise Fault(
            "PEM0342",
            f"`{text}` is not a declared adapter",
            "give the name of an adapter whose heads to keep",
        )
    if not value.adapter.layout.heads:
        holders = [x.name for leaf, x in declared.items() if leaf.adapter.layout.heads]
        raise Fault(
            "PEM0342",
            f"`{text}` has no heads (modules_to_save)",
            f"choose one that has them: {listed(holders)}"
            if holders
            else "leave heads= out: no adapter of the recipe has any, and none are saved",
        )
    return value
