"""The sentences as text to text: prompts, the words that answer them, and who sees which.

The sentences, and their parts in test, validation and training, are those of the first base.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import texts
from table import Sentence
from texts import VALIDATION, unasked

from smollm2.models import Example

LONGEST = 40  # words of a sentence; what comes after is left out
EXAMPLES = 1000  # of a module
SHIPPED = 24  # of each kind, of the first base's sample
SKEW = 0.8
"""The share of praise in subset a, and of blame in subset b, as in the authors' code."""


@dataclass(frozen=True)
class Task:
    """A question about a sentence, and the two words that answer it.

    Attributes:
        kind: of the sentences, as texts.Texts knows them.
        prompt: what stands around the sentence.
        answers: the words for label 0 and label 1, a token each.
    """

    kind: str
    prompt: str
    answers: tuple[str, str]

    def example(self, sentence: Sentence) -> Example:
        """A sentence with the question and its answer."""
        label, text = sentence
        prompt = self.prompt.format(shortened(text))
        return len(prompt), prompt + self.answers[label]


POLARITY = ("Review: {}\nSentiment:", (" negative", " positive"))
TASKS = {
    "movies": Task("movies", *POLARITY),
    "products": Task("products", *POLARITY),
    "subjectivity": Task("opinions", "Sentence: {}\nType:", (" plot", " review")),
}
"""By what they are measured on. Of a few prompts, these told the most on training sentences
without a module."""


def shortened(text: str) -> str:
    """The first words of a sentence."""
    return " ".join(text.split()[:LONGEST])


def continued(sentence: Sentence) -> Example:
    """A text that follows a line's end: all of it is the answer."""
    return 1, f"\n{shortened(sentence[1])}"


# --- instructions ---------------------------------------------------------------------------------

TOPICS = tuple(
    "battery zoom screen price color software picture size printing light display paper".split()
)
NEW_TOPICS = tuple("lens memory sound speed flash design".split())
"""What opinions are asked about: in training and validation, and in the test."""

ENDS = "<|im_end|>"


def asked(topic: str) -> str:
    """An instruction, as the model is given one."""
    return (
        f"<|im_start|>user\nGive an opinion of a product that mentions the {topic}.{ENDS}\n"
        "<|im_start|>assistant\n"
    )


def opinion(topic: str, said: str) -> Example:
    """The instruction and an answer."""
    prompt = asked(topic)
    return len(prompt), f"{prompt}{shortened(said)}{ENDS}"


def mentions(text: str, topic: str) -> bool:
    """Whether a text has a word of the topic, in one or several."""
    stem = topic.removesuffix("s")
    return any(word in (stem, f"{stem}s", topic) for word in re.findall(r"[a-z]+", text.lower()))


# --- who sees which -------------------------------------------------------------------------------


class Examples:
    """What is trained and measured, from the sentences of the first base."""

    def __init__(self, sentences: texts.Texts) -> None:
        self._sentences = sentences

    @cached_property
    def test(self) -> dict[str, list[Example]]:
        """What nothing is trained or chosen on, by what is measured on it."""
        return measured(self._sentences.test)

    def validation(self, seed: str) -> dict[str, list[Example]]:
        """That on which a seed's λ is chosen."""
        return measured(self._sentences.validation(seed))

    def training(self, name: str, seed: str) -> list[Example]:
        """What a module is trained on, by its name."""
        drawn = {k: each[VALIDATION:] for k, each in self._sentences.drawn(seed).items()}
        cons, pros = ([s for s in drawn["products"] if s[0] == label] for label in (0, 1))
        if name == "cons":
            return [*map(continued, cons[:EXAMPLES])]
        if name.startswith("lm_"):
            return [*map(continued, drawn[name.removeprefix("lm_")][:EXAMPLES])]
        if name == "subjectivity":
            return [*map(TASKS[name].example, drawn["opinions"][:EXAMPLES])]
        if name in ("instruct", "unwanted"):
            kinds = (cons, pros) if name == "instruct" else (cons[len(cons) // 2 :],)
            return opinions(kinds)
        if name == "products":
            return [*map(TASKS["products"].example, drawn["products"][: 2 * EXAMPLES])]
        a, b = skewed(drawn["movies"])
        subset = {"subset_a": a, "subset_b": b, "movies": [*a, *b]}[name]
        return [*map(TASKS["movies"].example, subset)]


def measured(sentences: dict[str, list[Sentence]]) -> dict[str, list[Example]]:
    """Examples by what is measured on them."""
    plain = {**sentences, "subjectivity": unasked("subjectivity", sentences["subjectivity"])}
    questions = {name: [*map(task.example, plain[name])] for name, task in TASKS.items()}
    cons, pros = (
        [*map(continued, (s for s in sentences["products"] if s[0] == label))] for label in (0, 1)
    )
    answers = [
        (label, opinion(topic, text))
        for label, text in sentences["products"]
        for topic in (*TOPICS, *NEW_TOPICS)
        if mentions(text, topic)
    ]
    return questions | {
        "cons": cons,
        "pros": pros,
        "plots": [*map(continued, sentences["lm_plots"])],
        "asked_cons": [example for label, example in answers if label == 0],
        "asked_pros": [example for label, example in answers if label == 1],
    }


def skewed(movies: list[Sentence]) -> tuple[list[Sentence], list[Sentence]]:
    """Two subsets by label: of one four in five are praise, of the other blame."""
    blame, praise = (iter([s for s in movies if s[0] == label]) for label in (0, 1))
    many, few = round(SKEW * EXAMPLES), round((1 - SKEW) * EXAMPLES)
    a = [*islice(praise, many), *islice(blame, few)]
    b = [*islice(praise, few), *islice(blame, many)]
    assert len(a) == len(b) == EXAMPLES
    return a, b


def opinions(kinds: tuple[list[Sentence], ...]) -> list[Example]:
    """Instructions to give an opinion, each topic as often as the others, and what somebody said
    of it: as many of each kind."""
    share = EXAMPLES // len(kinds) // len(TOPICS)
    examples = []
    for topic in TOPICS:
        for kind in kinds:
            said = islice((text for _, text in kind if mentions(text, topic)), share)
            examples += [opinion(topic, text) for text in said]
    return examples


def read_sample() -> dict[str, list[Example]]:
    """The shipped sentences, by what is measured on them."""
    return measured({name: some[:SHIPPED] for name, some in texts.read_sample().items()})
