"""What stands beside the tensors of an output: its config, its card, its provenance."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from pemlang.artifact import provenance
from pemlang.artifact.card import Card, Input, write_card
from pemlang.artifact.provenance import CARD, Loss, Material, Outcome, Provenance, Subject
from pemlang.artifact.staging import flush, turn
from pemlang.artifact.subjects import subject
from pemlang.check.checked import Checked
from pemlang.check.conditions import Known
from pemlang.check.options import Output
from pemlang.formats.peft import CONFIG, WEIGHTS
from pemlang.formats.peft_layout import adapters_of
from pemlang.graph.formula import Algebra
from pemlang.graph.node import Node
from pemlang.graph.normal import adapter_type
from pemlang.graph.numbers import shown
from pemlang.inputs.hub import SCHEME, parse_reference
from pemlang.inputs.identities import seen_from
from pemlang.inputs.imports import imports_of
from pemlang.tensorfiles.digests import changed, digests_of, file_digest
from pemlang.version import __version__


@dataclass(frozen=True)
class Built:
    """One output.

    Attributes:
        path: the directory.
        label: what was saved, as written.
        method: lora or ia3.
        sites: how many modules it changes.
        rank: the largest rank; None for (IA)³.
        size: bytes of its tensors' file.
        semantic_hash: equal for outputs of equal meaning.
        loss: what truncation took; None where nothing was cut.
        was_there: it was up to date: its tensors were not made again.
    """

    path: Path
    label: str
    method: str
    sites: int
    rank: int | None
    size: int
    semantic_hash: str
    loss: Loss | None
    was_there: bool


def built(output: Output, digest: str, outcome: Outcome, was_there: bool) -> Built:
    """What is told of an output."""
    return Built(
        path=output.target,
        label=output.label,
        method=outcome.method,
        sites=outcome.sites,
        rank=outcome.rank or None,
        size=outcome.size,
        semantic_hash=digest,
        loss=outcome.losses.get(output.node.key),
        was_there=was_there,
    )


def finish(
    checked: Checked,
    output: Output,
    digest: str,
    outcome: Outcome,
    config: Mapping[str, object],
    tensors: Subject,
    at: Path,
) -> None:
    """Write what stands beside the tensors, which are there."""
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    (at / CONFIG).write_text(text + "\n", encoding="utf-8")
    kept = {CONFIG: subject(at / CONFIG), WEIGHTS: tensors}
    _write(at, checked, output, digest, outcome, kept)


def refresh(checked: Checked, output: Output, digest: str, old: Provenance, at: Path) -> None:
    """Write the card and the provenance of an output that stays to an empty directory, with the
    rest of it, which is shared and not copied."""
    kept = {name: old.subjects[name] for name in (CONFIG, WEIGHTS)}
    with turn(output.target.parent):
        for name in kept:
            _share(output.target / name, at / name)
    for name, one in kept.items():
        if file_digest(at / name) != one.blake3:  # another build took its place meanwhile
            raise changed(output.target / name)
    _write(at, checked, output, digest, old.outcome, kept)


def is_outdated(checked: Checked, output: Output, digest: str, old: Provenance) -> bool:
    """Whether the card or the provenance of an output that stays says something else than they
    would now: the recipe was rewritten and means the same."""
    card = _card(checked, output, digest, old.outcome)
    try:
        there = (output.target / CARD).read_text(encoding="utf-8")
        said = (output.target / provenance.NAME).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return True
    subjects = {name: old.subjects[name] for name in (CONFIG, WEIGHTS, CARD)}
    whole = _provenance(checked, output, digest, old.outcome, subjects)
    return there != card or said != whole.as_text()


def _share(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError:  # a file system without links
        shutil.copyfile(old, new)


def _write(
    at: Path,
    checked: Checked,
    output: Output,
    digest: str,
    outcome: Outcome,
    kept: Mapping[str, Subject],
) -> None:
    (at / CARD).write_text(_card(checked, output, digest, outcome), encoding="utf-8")
    subjects = {**kept, CARD: subject(at / CARD)}
    whole = _provenance(checked, output, digest, outcome, subjects)
    (at / provenance.NAME).write_text(whole.as_text(), encoding="utf-8")
    flush(at)


def _provenance(
    checked: Checked,
    output: Output,
    digest: str,
    outcome: Outcome,
    subjects: Mapping[str, Subject],
) -> Provenance:
    algebra = Algebra(checked.leaf_name)
    return Provenance(
        recipe=checked.path.resolve().name,
        text=checked.source.text,
        settings={name: _setting(value) for name, value in sorted(checked.settings.items())},
        params=_params(checked),
        output=output.path,
        expression=output.label,
        normal_form=algebra.value(output.node),
        semantic_hash=digest,
        materials=_materials(checked, output),
        subjects=subjects,
        outcome=outcome,
    )


def _lenders(checked: Checked, output: Output) -> list[Node]:
    """The adapters that an output is made from, and the one that lends it its heads."""
    heads = () if output.heads is None else (output.heads,)
    return list(dict.fromkeys((*checked.graph.leaves(output.node), *heads)))


def _materials(checked: Checked, output: Output) -> list[Material]:
    found = []
    for leaf in _lenders(checked, output):
        [adapter] = adapters_of([leaf])
        declared = checked.elaborator.leaves[leaf]
        source = seen_from(checked.source.directory, declared.path, declared.directory)
        place = source
        if source.startswith(SCHEME):
            place = f"{SCHEME}{parse_reference(source).repo}@{adapter.directory.name}"
        found += [
            Material(declared.name, source, f"{place}/{name}", digest)
            for name, digest in digests_of(adapter).items()
        ]
    found += [Material(name, "", name, digest) for name, digest in imports_of(checked).items()]
    # Materials of one adapter stay in the order its identity is taken in.
    return sorted(found, key=lambda one: (one.name, one.source))


def _card(checked: Checked, output: Output, digest: str, outcome: Outcome) -> str:
    type_ = adapter_type(output.node)
    inputs = []
    for leaf in _lenders(checked, output):
        [adapter] = adapters_of([leaf])
        declared = checked.elaborator.leaves[leaf]
        inputs.append(Input(declared.name, declared.path, digests_of(adapter)))
    loss = outcome.losses.get(output.node.key)
    notes = () if loss is None else (f"Truncation took {loss.total:.2%} of the norm.",)
    return write_card(
        Card(
            title=output.target.name,
            expression=output.label,
            method=type_.method,
            base=type_.base,
            recipe_name=Path(checked.source.name).name,
            recipe=checked.source.text,
            params=_params(checked),
            inputs=sorted(inputs, key=lambda one: (one.name, one.path)),
            imports=imports_of(checked),
            semantic_hash=digest,
            notes=notes,
        )
    )


def metadata(checked: Checked, output: Output, digest: str) -> dict[str, str]:
    """What the file of the tensors says of itself. It depends on what the output means and on
    nothing else, so that two recipes of one meaning build the same bytes."""
    # A leaf is known by its content here, and by which copy of it it is.
    inputs = sorted(leaf.attrs[0].partition(" ")[0] for leaf in _lenders(checked, output))
    return {
        "format": "pt",
        "pemlang_semantic_hash": digest,
        "pemlang_version": __version__,
        "pemlang_inputs": " ".join(inputs),
    }


def _params(checked: Checked) -> dict[str, str]:
    return {name: _param(value) for name, value in checked.params.items()}


def _setting(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _param(value: object) -> str:
    if isinstance(value, Known):
        return str(value.truth).lower()
    return shown(value) if isinstance(value, Fraction) else str(value)
