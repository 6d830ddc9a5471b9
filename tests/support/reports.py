"""What reports are made of in tests, and names that try all they can."""

from __future__ import annotations

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
