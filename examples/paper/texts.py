"""The sentences: where each comes from, and who sees which.

The test sentences are the same for every seed, and drawn before anything else. What a seed trains
on and is validated on is drawn from the rest.
"""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
from settings import SAMPLE
from table import Sentence
from train import distinct, read

TEST, VALIDATION, TRAINING = 800, 300, 1200
TESTED, VALIDATED = 400, 200  # of these, the first so many are measured, to stay in the time
LANGUAGE = 1600  # sentences for language modelling
HEAD = 2500  # … of each kind, for the head that all of it shares
SHIPPED = 60
CORPORA = ("sentence_polarity", "pros_cons", "subjectivity")

ASKS = {"polarity": "Is this praise?", "subjectivity": "Is this an opinion?"}
"""What stands before a sentence, so that yes and no answer either task."""

SKEW = 0.8
"""The share of praise in subset a, and of blame in subset b."""


def asking(task: str, sentences: list[Sentence]) -> list[Sentence]:
    """Sentences with the question of a task before them."""
    return [(label, f"{ASKS[task]} {text}") for label, text in sentences]


class Texts:
    """All sentences, from NLTK's corpora in a folder."""

    def __init__(self, data: Path, embed: Callable[[list[str]], np.ndarray]) -> None:
        self._data, self._embed = data, embed
        self._drawn: dict[str, dict[str, list[Sentence]]] = {}

    @cached_property
    def movies(self) -> list[Sentence]:
        """Praise and blame of movies, by turns."""
        return read(self._data, "movies")

    @cached_property
    def products(self) -> list[Sentence]:
        """Pros and cons of products, by turns."""
        return read(self._data, "products")

    @cached_property
    def opinions(self) -> list[Sentence]:
        """Sentences of plots and of opinions on movies, by turns; none of the movies' test."""
        known = words_of(self.movies[:TEST])
        with zipfile.ZipFile(self._data / "subjectivity.zip") as archive:
            sides = [
                distinct(archive.read(f"subjectivity/{name}.tok.gt9.5000").decode())
                for name in ("plot", "quote")
            ]
        mixed = []
        for side in sides:
            texts = [text for words, text in side.items() if words not in known]
            random.Random(0).shuffle(texts)
            mixed.append(texts)
        return [turn for pair in zip(*mixed, strict=False) for turn in enumerate(pair)]

    @cached_property
    def test(self) -> dict[str, list[Sentence]]:
        """The sentences that nothing is trained or chosen on, by what is measured on them."""
        return self._measured(*(getattr(self, kind)[:TESTED] for kind in KINDS))

    def validation(self, seed: str) -> dict[str, list[Sentence]]:
        """The sentences on which a seed's λ is chosen."""
        drawn = self.drawn(seed)
        return self._measured(*(drawn[kind][:VALIDATED] for kind in KINDS))

    @staticmethod
    def _measured(
        movies: list[Sentence], opinions: list[Sentence], products: list[Sentence]
    ) -> dict[str, list[Sentence]]:
        return {
            "movies": movies,
            "products": products,
            "polarity": asking("polarity", movies),
            "subjectivity": asking("subjectivity", opinions),
            "lm_products": products,
            "lm_plots": [sentence for sentence in opinions if sentence[0] == 0],
        }

    def training(self, examples: str, seed: str, language: bool = False) -> list[Sentence]:
        """What a module is trained on.

        Args:
            examples: movies, products, polarity, subjectivity, subset_a or subset_b.
            language: whether it is to learn words and not labels.
        """
        drawn = {kind: sentences[VALIDATION:] for kind, sentences in self.drawn(seed).items()}
        if language:
            return drawn[examples][:LANGUAGE]
        if examples == "polarity":
            return asking("polarity", drawn["movies"][:TRAINING])
        if examples == "subjectivity":
            return asking("subjectivity", drawn["opinions"][:TRAINING])
        a, b = self.subsets(seed)
        return {"subset_a": a, "subset_b": b, "movies": [*a, *b]}[examples]

    def subsets(self, seed: str) -> tuple[list[Sentence], list[Sentence]]:
        """Two subsets of movie sentences, which differ in what they are about and in how much
        praise they hold.

        k-means parts the sentences by their embeddings; of one cluster four in five are then
        praise, of the other four in five blame, which is how the authors' code parts a data set.
        """
        drawn = self.drawn(seed)["movies"][VALIDATION:]
        cluster = two_means(self._embed([text for _, text in drawn]), int(seed))
        subsets = []
        for which in (0, 1):
            wanted = {1 - which: round(SKEW * TRAINING), which: round((1 - SKEW) * TRAINING)}
            inside = [s for s, own in zip(drawn, cluster, strict=True) if own == which]
            subsets.append([s for s in inside if self._take(wanted, s[0])])
        assert all(len(subset) == TRAINING for subset in subsets), "a cluster is too small"
        return subsets[0], subsets[1]

    @staticmethod
    def _take(wanted: dict[int, int], label: int) -> bool:
        wanted[label] -= 1
        return wanted[label] >= 0

    def general(self) -> list[Sentence]:
        """A third each of movies, plots and products, for the head of language modelling: none
        from the test sentences."""
        plots = [sentence for sentence in self.opinions[TEST:] if sentence[0] == 0]
        return [*self.movies[TEST:][:HEAD], *plots[:HEAD], *self.products[TEST:][:HEAD]]

    @cached_property
    def _tested(self) -> set[str]:
        return words_of(self.opinions[:TEST])

    def drawn(self, seed: str) -> dict[str, list[Sentence]]:
        """The sentences of a seed, in its own order; praise and blame by turns, as before."""
        if seed not in self._drawn:
            self._drawn[seed] = {}
            for kind in KINDS:
                rest = getattr(self, kind)[TEST:]
                pairs = [rest[at : at + 2] for at in range(0, len(rest) - 1, 2)]
                if kind == "movies":  # some of its sentences are among the opinions too
                    pairs = [pair for pair in pairs if not words_of(pair) & self._tested]
                random.Random(f"{kind} {seed}").shuffle(pairs)
                self._drawn[seed][kind] = [sentence for pair in pairs for sentence in pair]
        return self._drawn[seed]


KINDS = ("movies", "opinions", "products")


def words_of(sentences: list[Sentence]) -> set[str]:
    """The words of each sentence, without case and punctuation."""
    return set(distinct("\n".join(text for _, text in sentences)))


def two_means(points: np.ndarray, seed: int) -> np.ndarray:
    """k-means with k = 2: the cluster of each point."""
    rng = np.random.default_rng(seed)
    centres = points[rng.choice(len(points), 2, replace=False)]
    for _ in range(100):
        nearest = (points @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1)
        moved = np.stack([points[nearest == k].mean(axis=0) for k in (0, 1)])
        if np.allclose(moved, centres):
            break
        centres = moved
    return nearest


# --- the sample that is shipped -------------------------------------------------------------------


def write_sample(test: dict[str, list[Sentence]]) -> None:
    """Write the first test sentences of each kind into sample/."""
    SAMPLE.mkdir(exist_ok=True)
    for name, texts in (
        ("movies", test["movies"]),
        ("products", test["products"]),
        ("opinions", unasked("subjectivity", test["subjectivity"])),
    ):
        lines = (f"{label}\t{text}\n" for label, text in texts[:SHIPPED])
        (SAMPLE / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")


def read_sample() -> dict[str, list[Sentence]]:
    """The shipped sentences, by what is measured on them."""
    kinds = []
    for kind in KINDS:
        rows = (SAMPLE / f"{kind}.tsv").read_text(encoding="utf-8").splitlines()
        kinds.append([(int(row[0]), row[2:]) for row in rows])
    return Texts._measured(*kinds)


def unasked(task: str, sentences: list[Sentence]) -> list[Sentence]:
    """Sentences without the question that `asking` put before them."""
    return [(label, text.removeprefix(f"{ASKS[task]} ")) for label, text in sentences]
