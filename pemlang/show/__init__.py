"""What a person reads: text, Markdown, HTML, SVG, SARIF."""

from __future__ import annotations

from pemlang.lazy import door

__getattr__ = door(
    __name__,
    page="HEAD Chart Column View chart table whole_page",
    svg="as_svg text_width",
    library="as_text html_pages one_markdown",
    graph="Edge Picture Vertex as_dot as_mermaid",
    codes="catalogue",
    sarif="log",
    findings="Finding",
    pasting="MEANT is_sentence pasteable",
)
