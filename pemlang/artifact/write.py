"""What stands beside the tensors of an output: its texts, its card, its provenance."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath

from pemlang.artifact.card import Card, CardInput, write_card
from pemlang.artifact.place import CARD, PROVENANCE, folder_of, own_file, own_name
from pemlang.artifact.provenance import (
    Loss,
    Material,
    Outcome,
    Provenance,
    Subject,
    titled,
)
from pemlang.artifact.subjects import copied, subject
from pemlang.check.checked import Checked
from pemlang.check.conditions import Decided
from pemlang.check.outputs import Output
from pemlang.check.values import ParamConstant
from pemlang.dataclass import dataclass
from pemlang.diagnostics import visible
from pemlang.disk import share, turn
from pemlang.formats import Format, OutputLayout
from pemlang.formats.adapter import Adapter
from pemlang.graph.formula import Formula, count, size_text
from pemlang.graph.leaves import Stored
from pemlang.graph.numbers import shown
from pemlang.inputs.hub import SCHEME, parse_reference, pinned_reference
from pemlang.inputs.identities import seen_from
from pemlang.inputs.imports import imports_of
from pemlang.tensorfiles.digests import changed, file_digest
from pemlang.version import __version__


@dataclass(frozen=True)
class Built:
    """One output.

    Attributes:
        path: the directory, or the one file.
        label: what was saved, as written.
        method: lora or ia3.
        title: what it is, as a reader calls it.
        part: what its sites are called, `site` or `tensor`.
        sites: how many there are of them.
        rank: the largest rank; None for (IA)³.
        size: bytes of its tensors' file.
        semantic_hash: equal for outputs of equal meaning.
        loss: what truncation took; None where nothing was cut.
        was_there: it was up to date: its tensors were not made again.
        resumed: how many of its files of tensors were there from a build that was stopped.
    """

    path: Path
    label: str
    method: str
    title: str
    part: str
    sites: int
    rank: int | None
    size: int
    semantic_hash: str
    loss: Loss | None
    was_there: bool
    resumed: int

    def __repr__(self) -> str:
        rank = "" if self.rank is None else f", rank {self.rank}"
        facts = f"{self.title}{rank}, {count(self.sites, self.part)}, {size_text(self.size)}"
        return f"<Built {visible(self.path)}: {facts}>"


@dataclass(frozen=True)
class Description:
    """What is known of an output that has been made.

    Attributes:
        checked, output: the recipe, and the `save`.
        semantic_hash: of the output.
        outcome: what came out.
        format: of its files.
    """

    checked: Checked
    output: Output
    semantic_hash: str
    outcome: Outcome
    format: Format

    def built(self, was_there: bool, resumed: int) -> Built:
        """What is told of it to whoever asked for it."""
        return Built(
            path=self.output.target,
            label=self.output.label,
            method=self.outcome.method,
            title=titled(self.format, self.outcome),
            part=self.format.part,
            sites=self.outcome.sites,
            rank=self.outcome.rank or None,
            size=self.outcome.size,
            semantic_hash=self.semantic_hash,
            loss=self.outcome.losses.get(self.output.node.key),
            was_there=was_there,
            resumed=resumed,
        )

    def finish(self, layout: OutputLayout, tensors: Mapping[str, Subject], at: Path) -> None:
        """Write all that stands beside the tensors, which are there.

        Args:
            layout: its files.
            tensors: those of tensors, by name.
            at: its directory.
        """
        kept = dict(tensors)
        for name, text in layout.texts.items():
            (at / name).write_text(text, encoding="utf-8")
            kept[name] = subject(at / name)
        for name, source in layout.copies.items():
            shutil.copyfile(source, at / name)
            kept[name] = copied(at / name)
        self._write(at, kept)

    def refresh(self, old: Provenance, at: Path) -> None:
        """Write the card and the provenance of an output that stays to an empty directory, with
        the rest of it, which is shared and not copied."""
        kept = {name: told for name, told in old.subjects.items() if name != CARD}
        with turn(self.output.target.parent):
            for name, before in kept.items():
                there = folder_of(self.output.target) / name
                share(there, at / name)
                if file_digest(at / name) != before.blake3:  # another build took its place
                    raise changed(there)
        self._write(at, kept)

    def is_outdated(self, old: Provenance) -> bool:
        """Whether the card or the provenance of an output that stays says something else than
        they would now: the recipe was rewritten and means the same."""
        target = self.output.target
        try:
            statement = own_file(target, PROVENANCE).read_text(encoding="utf-8")
            told = self.format.one_file or (target / CARD).read_text(encoding="utf-8") == self._card
        except (OSError, UnicodeDecodeError):
            return True
        return not told or statement != self._provenance(old.subjects).as_text()

    def _write(self, at: Path, kept: Mapping[str, Subject]) -> None:
        card = {}
        if not self.format.one_file:
            (at / CARD).write_text(self._card, encoding="utf-8")
            card[CARD] = subject(at / CARD)
        statement = self._provenance({**kept, **card}).as_text()
        (at / own_name(self.output.target, PROVENANCE)).write_text(statement, encoding="utf-8")

    def _provenance(self, subjects: Mapping[str, Subject]) -> Provenance:
        checked, output = self.checked, self.output
        settings = sorted(checked.settings.items())
        return Provenance(
            recipe=checked.path.resolve().name,
            text=checked.source.text,
            settings={name: _given(value) for name, value in settings},
            params=params_text(checked),
            output=output.path,
            expression=output.label,
            normal_form=Formula(checked.leaf_name).value(output.node),
            semantic_hash=self.semantic_hash,
            materials=_materials(checked, output),
            subjects=subjects,
            outcome=self.outcome,
        )

    @cached_property
    def _card(self) -> str:
        checked, output = self.checked, self.output
        inputs = []
        for leaf in checked.made_from(output):
            declared = checked.leaves[leaf]
            inputs.append(CardInput(declared.name, declared.path, leaf.adapter.digests))
        loss = self.outcome.losses.get(output.node.key)
        notes = () if loss is None else (f"Truncation took {loss.total:.2%} of the norm.",)
        return write_card(
            Card(
                title=output.target.name,
                expression=output.label,
                method=self.outcome.method,
                base=output.node.type.base,
                format=self.format,
                recipe_name=Path(checked.source.name).name,
                recipe=checked.source.text,
                params=params_text(checked),
                inputs=sorted(inputs, key=lambda made_from: (made_from.name, made_from.path)),
                imports=imports_of(checked),
                semantic_hash=self.semantic_hash,
                notes=notes,
            )
        )


def metadata(checked: Checked, output: Output, semantic_hash: str) -> dict[str, str]:
    """What the file of the tensors says of itself. It depends on what the output means and on
    nothing else, so that two recipes of one meaning build the same bytes."""
    # A leaf is known by its content here, and by which copy of it it is.
    inputs = sorted(leaf.identity.partition(" ")[0] for leaf in checked.made_from(output))
    return {
        "format": "pt",
        "pemlang_semantic_hash": semantic_hash,
        "pemlang_version": __version__,
        "pemlang_inputs": " ".join(inputs),
    }


def params_text(checked: Checked) -> dict[str, str]:
    """The values of a recipe's params, as text."""
    return {name: param_text(value) for name, value in checked.params.items()}


def _materials(checked: Checked, output: Output) -> Sequence[Material]:
    materials = [
        material for leaf in checked.made_from(output) for material in _of_adapter(checked, leaf)
    ]
    pinned = {recipe.name: pinned_reference(recipe) for recipe in checked.files.published.values()}
    materials += [
        Material(name, "", pinned.get(name, name), digest)
        for name, digest in imports_of(checked).items()
    ]
    # Materials of one adapter stay in the order its identity is taken in.
    return sorted(materials, key=lambda material: (material.name, material.source))


def _of_adapter(checked: Checked, leaf: Stored) -> list[Material]:
    declared = checked.leaves[leaf]
    source = seen_from(checked.source.directory, declared.path, declared.directory)
    return [
        Material(declared.name, source, _place(source, leaf.adapter, name), digest)
        for name, digest in leaf.adapter.digests.items()
    ]


def _place(source: str, adapter: Adapter, name: str) -> str:
    """Where a file of an adapter is; on the hub with its revision."""
    if source.startswith(SCHEME):
        reference = parse_reference(source)
        return f"{reference.folder_at(reference.commit(adapter.directory))}/{name}"
    if not adapter.format.one_file:
        return f"{source}/{name}"
    return source if name == adapter.weights.name else str(PurePosixPath(source).with_name(name))


def _given(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def param_text(value: ParamConstant) -> str:
    """The value of a param as `--set` takes it."""
    if isinstance(value, Decided):
        return str(value.is_true).lower()
    return shown(value) if isinstance(value, Fraction) else str(value)
