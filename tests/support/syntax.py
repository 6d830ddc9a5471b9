"""Texts of recipes, parsed and laid out."""

from __future__ import annotations

import re

from pemlang.diagnostics import Report
from pemlang.source import Source
from pemlang.syntax import formatted, laid_out, parse, same
from pemlang.syntax import tree as t

MESSY = """\


#! /usr/bin/env pem
#no space
language   1


import std.paper(merge,
   unlearn,)  # the paper's
import "lib/house.pem"   as house
##  Two names
##  of one model.
base b=["org/a",   "models/a" ]
adapter a:lora(rank = 8,targets=["q","v"])on b="adapters/a"   # the first
   adapter c on b = "adapters/c"
param w:number in 0 .. 1=0.60


let x=w .* a .+ (1-w).*c .- ((a))
let s=per{"*.q":1_000.50,else:1e-3}*a[ layers 0 .. 3 ]["*.q","*.v"][like  house . f(a,by = w)]
def g(x:adapter,y:[number]=[])->[adapter]=[x,]
assert not(norm(a)<0.5)or true else "it \\"says\\"  so"
save x   to "out/{w}"with rank=16,dtype=bf16
# the end


"""

NEAT = """\
#! /usr/bin/env pem
#no space
language 1

import std.paper (merge, unlearn)  # the paper's
import "lib/house.pem" as house
##  Two names
##  of one model.
base b = ["org/a", "models/a"]
adapter a: lora(rank=8, targets=["q", "v"]) on b = "adapters/a"  # the first
adapter c on b = "adapters/c"
param w: number in 0..1 = 0.60

let x = w ⊗ a ⊕ (1 - w) ⊗ c ⊖ a
let s = per { "*.q": 1_000.50, else: 1e-3 } * a[layers 0..3]["*.q", "*.v"][like house.f(a, by=w)]
def g(x: adapter, y: [number] = []) -> [adapter] = [x]
assert not norm(a) < 0.5 or true else "it \\"says\\"  so"
save x to "out/{w}" with rank=16, dtype=bf16
# the end
"""


def source(text: str) -> Source:
    """A text as a recipe file would hold it."""
    return Source("test.pem", text)


def parsed(text: str) -> tuple[t.RecipeFile, list[str]]:
    """The tree of a text, and the codes of what is wrong with it, in order."""
    report = Report()
    return parse(source(text), report), [diagnostic.code for diagnostic in report]


def laid(text: str) -> str:
    """The layout of a text, held to what must be so of all."""
    report = Report()
    file = parse(source(text), report)
    report.raise_errors()
    layout = laid_out(file.span.source, file)
    again = parse(source(layout), report)
    report.raise_errors()
    assert same(file, again)
    assert remarks(layout) == remarks(text)
    assert laid_out(again.span.source, again) == layout
    assert layout.endswith("\n")
    assert not re.search(r"[ \t]\n|\n\n\n|^\n|\n\n$", layout)
    assert formatted(file.span.source) == layout
    return layout


def remarks(text: str) -> list[str]:
    """The comments of a text, found by reading past its strings."""
    comments = re.findall(r'"(?:\\.|[^"\\\n])*"|(#[^\n]*)', text)
    return [comment.rstrip() for comment in comments if comment]
