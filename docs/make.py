"""Writes the pages that are made from the code: `make docs`."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from pemlang.show import codes, formats, library, operators
from pemlang.show.results import RESULTS, MessageJson

HERE = Path(__file__).parent


class _Described(GenerateJsonSchema):
    """Schemas of records, with what their classes say of them."""

    def dataclass_schema(self, schema: Any) -> Any:
        return super().dataclass_schema(schema) | {"description": inspect.getdoc(schema["cls"])}


def schema(command: str) -> str:
    """The JSON schema of what a command gives with `--format json`."""
    messages = TypeAdapter(list[MessageJson]).json_schema(schema_generator=_Described)
    shared = messages.pop("$defs")
    forms = []
    for form in RESULTS[command]:
        fields = TypeAdapter(form).json_schema(schema_generator=_Described)
        shared |= fields.pop("$defs", {})
        fields["properties"]["messages"] = messages
        forms.append({**fields, "required": [*fields["required"], "messages"]})
    wrong = {
        "title": "What is given where something is wrong",
        "properties": {"messages": messages},
    }
    forms.append({**wrong, "required": ["messages"], "type": "object"})
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"pem {command} --format json",
        "anyOf": forms,
        "$defs": shared,
    }
    return json.dumps(_closed(whole), indent=1, ensure_ascii=False) + "\n"


def _closed(schema: Any) -> Any:
    """A schema whose objects have the properties that they name and no others."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in sorted(schema.items())}
    return closed | {"additionalProperties": False} if "properties" in schema else closed


if __name__ == "__main__":
    for name, page in {
        "errors": codes,
        "formats": formats,
        "library": library,
        "operators": operators,
    }.items():
        (HERE / f"{name}.md").write_text(page.as_markdown(), encoding="utf-8")
    for command in RESULTS:
        (HERE / "schemas" / f"{command}.json").write_text(schema(command), encoding="utf-8")
