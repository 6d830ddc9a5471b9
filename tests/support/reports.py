"""What reports are made of in tests, and names that try all they can."""

from __future__ import annotations

from html.parser import HTMLParser

SITES = {
    f"layers.{i}.{name}": shape
    for i in range(3)
    for name, shape in (("q_proj", (12, 16)), ("down", (16, 40)))
}
TEXT = """
adapter a = "a"
adapter b = "b"
adapter c = "c"
adapter i = "i"
adapter j = "j"
save 0.5 * a - 2 * b to "out/sum"
save a + b to "out/cut" with rank=3
save i + 0.5 * j to "out/gains"
"""
SCRIPT = "</script><script>window.hacked=1</script>"
IMAGE = '"><img src=x onerror="window.hacked=1">'


class Page(HTMLParser):
    """What a browser would make of a page: its elements, its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "data": []}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script" and dict(attrs).get("type") == "application/json":
            self._inside = "data"

    def handle_data(self, data: str) -> None:
        if self._inside in self.texts:
            self.texts[self._inside].append(data)
            self._inside = ""
