"""Where an output came from: an in-toto statement with a SLSA v1 provenance beside its tensors.

It names no absolute path but those the recipe itself names, and no time, so that it is the same
to the byte wherever and whenever a recipe is built. See https://slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

from pemlang.artifact.place import CARD, PROVENANCE, is_one_file, own_file, own_name
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.disk import is_dir, is_file, open_plain
from pemlang.formats import FORMATS, Format
from pemlang.formats.adapter import method_title
from pemlang.modules import PARAMETRISATIONS
from pemlang.tensorfiles.digests import ALGORITHM, text_digest
from pemlang.tensorfiles.jsons import parse_json
from pemlang.version import LANGUAGE, __version__

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD = "urn:pemlang:build:v1"
MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Material:
    """A file that an output was made from.

    Attributes:
        name: what the recipe calls the adapter or import.
        source: the adapter as the recipe names it, seen from its folder; empty for an import.
        uri: where the file is, seen from there; for the hub with its revision.
        digest: its BLAKE3; of an import, that of its text.
    """

    name: str
    source: str
    uri: str
    digest: str


@dataclass(frozen=True)
class Subject:
    """A file of an output.

    Attributes:
        sha256, blake3: its digests.
        parts: what it holds, so that a change can be named: a config's fields, or the BLAKE3 of
            each tensor.
    """

    sha256: str
    blake3: str
    parts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Loss:
    """What truncation took from one output: relative Frobenius error, in all and per site."""

    total: float
    sites: Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """What is known of an output once it has been made, for a build that need not make it again.

    Attributes:
        method: the kinds of its sites, as AdapterType.method has them.
        sites, rank, size: how many modules it changes, the largest rank (0 for (IA)³), the bytes
            of its tensors' file.
        losses: what truncation took, by the key of the node of the graph that cut.
        rounding: how much the dtype of the file changes it, relative to its norm.
        is_zero: whether it does nothing.
        format: of one that is a file, by name; empty of a folder, whose files tell it.
        algebra: the linear algebra library by which its last digits go, and the kind of processor;
            empty where they are the same everywhere.
        ranks: the least and the largest, where sites have unlike ones that readers of `r` and
            `lora_alpha` alone get wrong; else empty.
    """

    method: str
    sites: int
    rank: int
    size: int
    losses: Mapping[str, Loss]
    rounding: float
    is_zero: bool
    format: str = ""
    algebra: str = ""
    ranks: str = ""


@dataclass(frozen=True)
class Provenance:
    """All of a statement.

    Attributes:
        recipe, text: the recipe's file name, and its text.
        settings: the values that were given for its params, as text.
        params: the values of all its params.
        output, expression: where the recipe saves, and what, as written.
        normal_form: the same by algebra.
        semantic_hash: equal for outputs of equal meaning.
        materials: what it was made from.
        subjects: its files.
        outcome: what came out.
        tool, language: the versions that made it.
    """

    recipe: str
    text: str
    settings: Mapping[str, str]
    params: Mapping[str, str]
    output: str
    expression: str
    normal_form: str
    semantic_hash: str
    materials: Sequence[Material]
    subjects: Mapping[str, Subject]
    outcome: Outcome
    tool: str = __version__
    language: int = LANGUAGE

    @property
    def format(self) -> Format:
        """Of its files."""
        return format_of(self.subjects, self.outcome)

    @property
    def title(self) -> str:
        """What it is, as a reader calls it: `LoRA`, `model`."""
        return titled(self.format, self.outcome)

    def as_text(self) -> str:
        """The statement, stable to the byte."""
        subjects = [
            {
                "name": name,
                "digest": {"sha256": subject.sha256, ALGORITHM: subject.blake3},
                **({"annotations": {"parts": dict(subject.parts)}} if subject.parts else {}),
            }
            for name, subject in sorted(self.subjects.items())
        ]
        dependencies = [
            {
                "name": material.name,
                "uri": material.uri,
                "digest": {ALGORITHM: material.digest},
                **({"annotations": {"source": material.source}} if material.source else {}),
            }
            for material in self.materials
        ]
        asked = {
            "recipe": {"name": self.recipe, "text": self.text},
            "settings": dict(self.settings),
            "params": dict(self.params),
            "output": self.output,
            "expression": self.expression,
        }
        byproducts: list[object] = [{"name": "outcome", "annotations": _told(self.outcome)}]
        versions = {"pemlang": self.tool, "language": str(self.language)}
        details = {
            "builder": {"id": "urn:pemlang", "version": versions}, "byproducts": byproducts,
        }  # fmt: skip
        followed = {"normalForm": self.normal_form, "semanticHash": self.semantic_hash}
        statement = {
            "_type": STATEMENT,
            "subject": subjects,
            "predicateType": PREDICATE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD,
                    "externalParameters": asked,
                    "internalParameters": followed,
                    "resolvedDependencies": dependencies,
                },
                "runDetails": details,
            },
        }
        byproducts.append(_digest_of(statement))
        return json.dumps(statement, indent=1) + "\n"


def _told(outcome: Outcome) -> dict[str, object]:
    """The fields of an outcome, without those that do not apply."""
    return {name: value for name, value in asdict(outcome).items() if value != ""}


def titled(format_: Format, outcome: Outcome) -> str:
    """What an output is, as a reader calls it: `LoRA`, `model`."""
    return "model" if format_.holds == "model" else method_title(outcome.method)


def format_of(subjects: Mapping[str, Subject], outcome: Outcome) -> Format:
    """The format of one file, by its name, or that whose files are among those of an output;
    raises LookupError where none is."""
    if outcome.format:
        record = FORMATS[outcome.format]
        [name] = subjects
        if record.one_file and name.endswith(record.suffix):
            return record
    elif CARD not in subjects:
        raise LookupError
    for record in FORMATS.values():
        if record.wrote(subjects.keys()):
            return record
    raise LookupError


def _digest_of(statement: object) -> dict[str, object]:
    """The statement's own digest, which stands last in it: a change of one byte shows. It keeps
    nobody from changing both; that is what a signature is for."""
    return {"name": PROVENANCE, "digest": {ALGORITHM: text_digest(json.dumps(statement))}}


def read_provenance(target: Path) -> Provenance:
    """The statement of an output; raises PEM0810 where there is none that pemlang wrote."""
    path, help = own_file(target, PROVENANCE), "build the adapter again with `pem build`"
    try:
        with open_plain(path) as file:
            data = file.read(MAX_BYTES + 1)
        provenance = _parsed(parse_json(data) if len(data) <= MAX_BYTES else None)
        if provenance.as_text().encode() == data:
            return provenance
        why = f"{visible(path)} is not what the build wrote"
    except (FileNotFoundError, NotADirectoryError):
        why, help = _without(target)
    except OSError as error:
        why = f"cannot read {visible(path)}: {error.strerror or error}"
    except (ValueError, LookupError, TypeError, AttributeError):
        why = f"{visible(path)} is no provenance that this version of pemlang reads"
    raise Fault("PEM0810", why, help)


def _without(target: Path) -> tuple[str, str]:
    """What to say of a place that has no statement: what is wrong, and what to do."""
    shown = visible(target)
    if not is_dir(target) and not is_file(target):
        return f"there is no folder {shown}", "give the folder of an output, or its one file"
    if is_file(target) and not is_one_file(target):
        return f"{shown} is a file of another kind", "give the folder of an output, or its one file"
    lacks = own_name(target, PROVENANCE)
    return (
        f"{shown} is no output of pem: there is no {visible(lacks)} beside it"
        if is_one_file(target)
        else f"{shown} is no output of pem: it has no {lacks}",
        f"give what `pem build` wrote; `pem inspect {shown}` says what this is",
    )


def _parsed(statement: Any) -> Provenance:
    """A statement by its fields; what is missing or of another type raises one of what is caught
    above."""
    if (statement["_type"], statement["predicateType"]) != (STATEMENT, PREDICATE):
        raise ValueError
    definition = statement["predicate"]["buildDefinition"]
    details = statement["predicate"]["runDetails"]
    asked, followed = definition["externalParameters"], definition["internalParameters"]
    if definition["buildType"] != BUILD:
        raise ValueError
    versions = details["builder"]["version"]
    subjects = {
        _file_name(subject["name"]): Subject(
            _text(subject["digest"]["sha256"]),
            _text(subject["digest"][ALGORITHM]),
            _object(subject.get("annotations", {}).get("parts", {})),
        )
        for subject in statement["subject"]
    }
    outcome = _outcome(details["byproducts"][0]["annotations"])
    format_of(subjects, outcome)
    return Provenance(
        recipe=_file_name(asked["recipe"]["name"]),
        text=_text(asked["recipe"]["text"]),
        settings=_texts(asked["settings"]),
        params=_texts(asked["params"]),
        output=_text(asked["output"]),
        expression=_text(asked["expression"]),
        normal_form=_text(followed["normalForm"]),
        semantic_hash=_text(followed["semanticHash"]),
        materials=[
            Material(
                _text(material["name"]),
                _text(material.get("annotations", {}).get("source", "")),
                _text(material["uri"]),
                _text(material["digest"][ALGORITHM]),
            )
            for material in definition["resolvedDependencies"]
        ],
        subjects=subjects,
        outcome=outcome,
        tool=_text(versions["pemlang"]),
        language=_count(int(_text(versions["language"]))),
    )


def _outcome(value: Any) -> Outcome:
    losses = {
        _text(key): Loss(
            _share(loss["total"]), {_text(site): _share(x) for site, x in loss["sites"].items()}
        )
        for key, loss in value["losses"].items()
    }
    return Outcome(
        _method(value["method"]),
        _count(value["sites"]),
        _count(value["rank"]),
        _count(value["size"]),
        losses,
        _share(value["rounding"]),
        value["is_zero"] is True,
        _text(value.get("format", "")),
        _text(value.get("algebra", "")),
        _text(value.get("ranks", "")),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _file_name(value: object) -> str:
    name = _text(value)
    if not name or not name.isprintable() or name != Path(name).name:
        raise ValueError
    return name


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError
    return value


def _share(value: object) -> float:
    if type(value) is bool or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ValueError
    return float(value)


def _method(value: object) -> str:
    if not set(_text(value).split("+")) <= PARAMETRISATIONS.keys():
        raise ValueError
    return _text(value)


def _texts(value: Any) -> dict[str, str]:
    return {_text(name): _text(text) for name, text in value.items()}
