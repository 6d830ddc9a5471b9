"""Which token each row of an embedding is of: the files of tokenizers, read and added to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.disk import is_file, open_plain
from pemlang.tensorfiles.jsons import parse_json

MAX_JSON = 64 << 20
MAX_TOKENS = 1 << 22

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
_ADDED = "added_tokens.json"
_TABLES = ("vocab.json", "vocab.txt")
TOKENS = (TOKENIZER, *_TABLES)
"""The files that tell tokens: one of them is enough."""

_SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")

_PLAIN = {
    "single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False,
}  # fmt: skip
"""What tokenizers makes of a token that is added by its text alone."""

Run = tuple[int, int, int]
"""Rows one after the other: the first of them, the first of the rows they come from, how many."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of a model.

    Attributes:
        numbers: of each token, the number of its row.
        added: the tokens that stand beside the model of the tokenizer, each as tokenizer.json
            describes it.
        next: the number that a tokenizer gives to a token that is added to it.
        new: the tokens that are in no file yet, in the order of their numbers.
    """

    numbers: Mapping[str, int]
    added: Mapping[str, Mapping[str, bool]]
    next: int
    new: tuple[str, ...] = ()

    def runs_from(self, other: Vocabulary, rows: int, others: int) -> tuple[Run, ...]:
        """The rows whose tokens another vocabulary has too, with where they are there.

        Args:
            other: the other vocabulary.
            rows, others: how many rows the two have; a token beyond them has none.
        """
        shared = {
            number: other.numbers[token]
            for token, number in self.numbers.items()
            if number < rows and other.numbers.get(token, others) < others
        }
        return runs(sorted(shared.items()))

    def joined(self, others: Sequence[Vocabulary]) -> Vocabulary:
        """This one with the tokens of others after its own: those that their tokenizers' models
        know, then those added to them, in the order of the others and of their numbers."""
        inner: dict[str, None] = {}
        added: dict[str, Mapping[str, bool]] = {}
        for other in others:
            for token in sorted(other.numbers, key=other.numbers.__getitem__):
                if token in self.numbers:
                    continue
                if token in other.added:
                    added.setdefault(token, other.added[token])
                else:
                    inner[token] = None
        new = [token for token in inner if token not in added] + list(added)
        numbers = {token: self.next + at for at, token in enumerate(new)}
        described = {token: added.get(token, _PLAIN) for token in new}
        return Vocabulary(
            {**self.numbers, **numbers},
            {**self.added, **described},
            self.next + len(new),
            (*self.new, *new),
        )


def runs(places: Iterable[tuple[int, int]]) -> tuple[Run, ...]:
    """Rows, in order, each with the row it comes from, as runs of them."""
    joined: list[list[int]] = []
    for row, source in places:
        last = joined[-1] if joined else None
        if last and row == last[0] + last[2] and source == last[1] + last[2]:
            last[2] += 1
        else:
            joined.append([row, source, 1])
    return tuple((row, source, count) for row, source, count in joined)


def rest_of(taken: Iterable[Run], rows: int) -> tuple[Run, ...]:
    """The rows that some runs leave out, each from the row of the same number."""
    left = set(range(rows)).difference(*(range(at, at + count) for at, _, count in taken))
    return runs((row, row) for row in sorted(left))


def read_vocabulary(directory: Path) -> Vocabulary:
    """The tokens of the model in a directory, from the first of the files that tell them:
    tokenizer.json; vocab.json or vocab.txt, with added_tokens.json.

    Raises:
        Fault: PEM0357 there is none, or it is not what such a file is.
    """
    if is_file(directory / TOKENIZER):
        return _of_tokenizer(directory / TOKENIZER)
    for name in _TABLES:
        if is_file(directory / name):
            table = _of_table(directory / name)
            if not is_file(directory / _ADDED):
                return table
            own = _of_table(directory / _ADDED)
            return Vocabulary(
                {**table.numbers, **own.numbers}, dict.fromkeys(own.numbers, _PLAIN), own.next
            )
    pieces = [name for name in _SENTENCEPIECE if is_file(directory / name)]
    what = f"its tokens are in {pieces[0]} alone" if pieces else "no file of a tokenizer"
    raise Fault(
        "PEM0357",
        f"{visible(directory)} does not say which token each row is of: {what}",
        f"write {TOKENIZER} beside its weights, in Python: AutoTokenizer.from_pretrained(…)"
        ".save_pretrained(directory)",
    )


def tells_tokens(directory: Path) -> bool:
    """Whether a model has a file of a tokenizer."""
    return any(is_file(directory / x) for x in (*TOKENS, *_SENTENCEPIECE))


def hold_growing(directory: Path, vocabulary: Vocabulary, rows: int) -> None:
    """Hold a model to take tokens after its own: each has a row, and its tokenizer gives a new one
    the number after all of them; raises Fault PEM0357."""
    last = max(vocabulary.numbers.values(), default=-1)
    if last >= min(rows, vocabulary.next):
        raise Fault(
            "PEM0357",
            f"{visible(directory)} takes no more tokens: its last is number {last}, its embedding "
            f"has {rows} rows, and its tokenizer would call the next one {vocabulary.next}",
            "join to a model whose tokens are numbered without a gap, each with a row",
        )
    if not is_file(directory / TOKENIZER):
        raise Fault(
            "PEM0357",
            f"{visible(directory)} has no {TOKENIZER}, and tokens are added to no other file",
            "write it beside its weights, in Python: AutoTokenizer.from_pretrained(…)"
            ".save_pretrained(directory)",
        )


def with_new_tokens(directory: Path, vocabulary: Vocabulary) -> dict[str, str]:
    """The files of a tokenizer that tell its tokens, with the new ones of a vocabulary; raises
    Fault PEM0357."""
    added = {
        token: {**vocabulary.added[token], "id": vocabulary.numbers[token], "content": token}
        for token in vocabulary.new
    }
    told = _json_of(directory / TOKENIZER)
    whole = {**told, "added_tokens": [*_list(told.get("added_tokens")), *added.values()]}
    files = {TOKENIZER: json.dumps(whole, indent=2) + "\n"}
    settings = _json_of(directory / SETTINGS) if is_file(directory / SETTINGS) else {}
    decoder = settings.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        more = {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in added.values()
        }
        settings = {**settings, "added_tokens_decoder": {**decoder, **more}}
        files[SETTINGS] = json.dumps(settings, indent=2) + "\n"
    return files


# --- files ---------------------------------------------------------------------------------------


def _of_tokenizer(file: Path) -> Vocabulary:
    """The tokens that a tokenizer.json has."""
    told = _json_of(file)
    model = told.get("model")
    table = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(table, list):  # of Unigram: a token and its score, by number
        pieces = [row[0] if isinstance(row, list) and row else None for row in table]
        table = {piece: at for at, piece in enumerate(pieces) if isinstance(piece, str)}
    inner = _numbers(file, table)
    own: dict[str, object] = {}
    added = {}
    for token in _list(told.get("added_tokens")):
        text = token.get("content") if isinstance(token, dict) else None
        if not isinstance(token, dict) or not isinstance(text, str):
            raise _wrong(file, "an added token without a text")
        own[text] = token.get("id")
        told_of = {key: token.get(key) for key in _PLAIN}
        added[text] = _PLAIN | {key: x for key, x in told_of.items() if isinstance(x, bool)}
    outer = _numbers(file, own)
    # As tokenizers numbers what is added: after its model's tokens, and after all added so far.
    following = max([len(inner), *(number + 1 for number in outer.values())])
    return Vocabulary({**inner, **outer}, added, following)


def _of_table(file: Path) -> Vocabulary:
    """The tokens of an object of tokens and numbers, or of a list of tokens, a line each."""
    if file.suffix == ".txt":
        lines = _read(file).decode(errors="replace").removesuffix("\n").split("\n")
        numbers = {line.removesuffix("\r"): at for at, line in enumerate(lines)}
    else:
        numbers = _numbers(file, _json_of(file))
    return Vocabulary(numbers, {}, max(numbers.values(), default=-1) + 1)


def _numbers(file: Path, table: object) -> dict[str, int]:
    """A table of tokens and numbers; raises Fault PEM0357 for what is none."""
    if not isinstance(table, dict) or len(table) > MAX_TOKENS:
        raise _wrong(file, "no table of tokens")
    for token, number in table.items():
        if not isinstance(token, str) or type(number) is not int or not 0 <= number < MAX_TOKENS:
            told = f"{visible(str(token), 40)!r} with {visible(str(number), 40)!r} for its number"
            raise _wrong(file, f"the token {told}")
    return table


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _json_of(file: Path) -> dict[str, object]:
    try:
        told = parse_json(_read(file))
    except ValueError:
        raise _wrong(file, "no JSON") from None
    if not isinstance(told, dict):
        raise _wrong(file, "no object")
    return told


def _read(file: Path) -> bytes:
    try:
        with open_plain(file) as opened:
            text = opened.read(MAX_JSON + 1)
    except OSError:
        raise _wrong(file, "what cannot be read") from None
    if len(text) > MAX_JSON:
        raise _wrong(file, f"more than {MAX_JSON >> 20} MiB")
    return text


def _wrong(file: Path, what: str) -> Fault:
    return Fault(
        "PEM0357",
        f"{visible(file)} is no file of a tokenizer: it has {what}",
        "load the tokenizer in transformers, and save it there again",
    )
