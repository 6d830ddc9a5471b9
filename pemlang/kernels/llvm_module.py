"""The modules that programs become: all passes of one, what runs them over tensors that lie in
memory, and over Δ = B·A, of which a tile is formed at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pemlang.kernels.histogram import APART_NEAR, LEAST, PIECE_NEAR, functions
from pemlang.kernels.llvm import LlvmPass, LlvmSettle
from pemlang.kernels.llvm_stream import joined, large, nothing, stream
from pemlang.kernels.llvm_text import REAL, WIDTH, LlvmText, function, vector
from pemlang.kernels.passes import kinds, passes, reads_of, repeats, scans
from pemlang.kernels.philox import draws_function
from pemlang.kernels.program import Program
from pemlang.kernels.sorting import places
from pemlang.kernels.steps.places import Draw, RowPlace
from pemlang.kernels.steps.scans import Kth

ROWS = 4
"""Rows of Δ that are summed up at once."""


def exact_source(program: Program) -> str:
    """A module with `@exact`."""
    last = LlvmPass(program, passes(program) - 1, "exact", exact=True)
    return _module([*_called(program), *last.lines])


def passes_source(program: Program) -> str:
    """A module with `@pass0`, …, `@settle0`, …, `@tensors`, `@stream` and
    `@large`."""
    return _module([*_passes(program), *_tensors(program), *stream(program), *large(program)])


def tiles_source(program: Program) -> str:
    """A module with `@tiles0`, `@join0`, …, of a program whose inputs are Δ of some adapters and
    whose one output is as large."""
    [store] = program.stores
    return _module([*_passes(program), *_product(REAL[store.dtype]), *_tiles(program)])


def _passes(program: Program) -> Iterator[str]:
    yield from _called(program)
    yield from functions(step for step in program.steps if isinstance(step, Kth))
    for turn in range(passes(program)):
        yield from LlvmPass(program, turn, f"pass{turn}").lines
        if turn < passes(program) - 1:
            yield from LlvmSettle(program, turn).settle()
        if repeats(program, turn):
            yield from LlvmSettle(program, turn).start()
            yield from LlvmSettle(program, turn).bracket()


def _called(program: Program) -> Iterator[str]:
    """What all passes call."""
    for word in sorted({f"i{x.source[1:]}" for x in program.steps if isinstance(x, RowPlace)}):
        yield from places(word)
    if any(isinstance(step, Draw) for step in program.steps):
        yield from draws_function()


# --- over tensors in memory ------------------------------------------------------------------


def _tensors(program: Program) -> list[str]:
    """All passes over some tensors that lie one after the other, each with constants of its own.

    Takes how many there are and where each of them ends; then, beside what passes take, how many
    numbers lie between the constants of one tensor and those of the next, and the same of the
    steps' numbers and of what is found.
    """
    text = LlvmText()
    last = passes(program) - 1
    with text.loop("%count") as loop:
        first = loop.carry("i64", "0")
        end = text.add(f"load i64, ptr {text.at('%ends', 'i64', loop.index)}")
        own = {name: _row(text, name, loop.index) for name in ("c", "s", "found")}
        watched = ["0.0"]
        for turn in range(last + 1):
            arguments = f"ptr %in, ptr %out, {_pointers(own)}, ptr %scratch"
            whole = f"call void @pass{turn}(i64 {first}, i64 {end}, i64 0, {arguments})"
            if turn == last:
                text.do(whole)
                continue
            if repeats(program, turn):
                _sampled(text, turn, own, (first, end), arguments)
            with text.repeat() as going:
                text.do(whole)
                going.append(text.add(f"call i64 @settle{turn}({_pointers(own)}, ptr %scratch)"))
            watched.append(_found(text, own["found"], len(scans(program)[turn])))
        total = _found(text, own["found"], len(program.stores))
        for more in watched:
            total = text.add(f"fadd double {total}, {more}")
        at = text.at(own["found"], "double", len(program.stores))
        text.do(f"store double {total}, ptr {at}")
        loop.next(first, end)
    apart = ", ".join(f"ptr %{name}, i64 %{name}_apart" for name in ("c", "s", "found"))
    arguments = f"i64 %count, ptr %ends, ptr %in, ptr %out, {apart}, ptr %scratch"
    return function(f"void @tensors({arguments})", text)


def _sampled(
    text: LlvmText, turn: int, own: dict[str, str], ends: tuple[str, str], arguments: str
) -> None:
    """Begin a pass that repeats over a tensor, with a sample of it if it is not small."""
    first, end = ends
    text.do(f"call void @start{turn}(ptr {own['s']})")
    size = text.add(f"sub i64 {end}, {first}")
    with text.where(text.add(f"icmp sge i64 {size}, {LEAST}")):
        with text.loop(end, first, APART_NEAR) as piece:
            taken = piece.carry("i64", "0")
            stop = text.add(f"add i64 {piece.index}, {PIECE_NEAR}")
            stop = text.add(f"call i64 @llvm.smin.i64(i64 {stop}, i64 {end})")
            base = text.add(f"sub i64 {piece.index}, {first}")
            text.do(
                f"call void @pass{turn}(i64 {piece.index}, i64 {stop}, i64 {base}, {arguments})"
            )
            more = text.add(f"sub i64 {stop}, {piece.index}")
            piece.next(taken, text.add(f"add i64 {taken}, {more}"))
        numbers = f"ptr {own['c']}, ptr {own['s']}, ptr %scratch"
        text.do(f"call void @bracket{turn}(i64 {taken}, i64 {size}, {numbers})")


def _row(text: LlvmText, name: str, index: str) -> str:
    return text.at(f"%{name}", "double", text.add(f"mul i64 {index}, %{name}_apart"))


def _pointers(own: dict[str, str]) -> str:
    return ", ".join(f"ptr {pointer}" for pointer in own.values())


def _found(text: LlvmText, found: str, index: int) -> str:
    return text.add(f"load double, ptr {text.at(found, 'double', index)}")


# --- over Δ ----------------------------------------------------------------------------------


def finds(program: Program) -> int:
    """How many numbers the passes of a program with one output find at the most, with NaN where an
    input is not finite."""
    return 1 + max([1, *(len(numbers) for numbers in scans(program))])


def _tiles(program: Program) -> Iterator[str]:
    """Of each pass a function for some tiles of Δ, `@tiles0`, …, and one that joins what all tiles
    found in their order, `@join0`, …, which also gives the scans of the pass their values. From a
    pass that reads a Δ to the next that Δ is kept whole, where the result will lie; so that a pass
    that is done again, `@again0`, …, finds it there."""
    for turn, (kept, formed) in enumerate(_kept_and_formed(program)):
        yield from _pass_over_tiles(program, f"tiles{turn}", turn, kept, formed)
        if repeats(program, turn):
            others = [slot for slot in formed if slot != kept]
            yield from _pass_over_tiles(program, f"again{turn}", turn, kept, others)
        yield from _joined(program, turn)


def _pass_over_tiles(
    program: Program, name: str, turn: int, kept: int | None, formed: Sequence[int]
) -> list[str]:
    """A pass over the tiles that begin at the rows `%first` to `%end`.

    Takes the rows and columns of Δ, and the rows of a tile; for each input the rank, A in panels
    of WIDTH columns, and s·B; where the tiles lie, `%in`; where the result does, `%out`; and the
    rest as passes do, with room in `%found` for what each tile finds.
    """
    text = LlvmText()
    [store] = program.stores
    real, inputs = REAL[store.dtype], 1 + max(load.input for load in program.loads)
    text.do("%here = alloca ptr")
    text.do(f"%deltas = alloca [{inputs} x ptr]")
    places = [text.at("%deltas", "ptr", slot) for slot in range(inputs)]
    for slot, place in enumerate(places):
        tile = text.add(f"load ptr, ptr {text.at('%in', 'ptr', slot)}")
        text.do(f"store ptr {tile}, ptr {place}")
    with text.loop("%end", "%first", step="%tile") as loop:
        left = text.add(f"sub i64 %rows, {loop.index}")
        rows = text.add(f"call i64 @llvm.smin.i64(i64 {left}, i64 %tile)")
        at = text.add(f"mul i64 {loop.index}, %columns")
        out = text.at("%out", real, at)
        text.do(f"store ptr {out}, ptr %here")
        if kept is not None:
            text.do(f"store ptr {out}, ptr {places[kept]}")
        for slot in formed:
            _form(text, slot, places[slot], loop.index, rows)
        size = text.add(f"mul i64 {rows}, %columns")
        found = _found_of(text, text.add(f"sdiv i64 {loop.index}, %tile"), finds(program))
        text.do(
            f"call void @pass{turn}(i64 0, i64 {size}, i64 {at}, ptr %deltas, ptr %here, "
            f"ptr %c, ptr %s, ptr {found}, ptr %scratch)"
        )
    numbers = ", ".join(f"i64 %{x}" for x in ("first", "end", "rows", "columns", "tile"))
    pointers = ", ".join(
        f"ptr %{x}" for x in ("ranks", "a", "b", "in", "out", "c", "s", "found", "scratch")
    )
    return function(f"void @{name}({numbers}, {pointers})", text)


def _found_of(text: LlvmText, tile: str, apart: int) -> str:
    return text.at("%found", "double", text.add(f"mul i64 {tile}, {apart}"))


def _joined(program: Program, turn: int) -> list[str]:
    """What `%count` tiles found, put together in `%total`."""
    text, how = LlvmText(), kinds(program, turn)
    last = turn == passes(program) - 1
    count = 1 + (1 if last else len(scans(program)[turn]))
    with text.loop("%count") as loop:
        found = _found_of(text, loop.index, finds(program))
        totals = []
        for index in range(count):
            total = loop.carry("double", nothing(how.get(index)))
            more = text.add(f"load double, ptr {text.at(found, 'double', index)}")
            loop.next(total, joined(text, how.get(index), total, more))
            totals.append(total)
    for index, total in enumerate(totals):
        text.do(f"store double {total}, ptr {text.at('%total', 'double', index)}")
    again = "0"
    if not last:
        again = text.add(f"call i64 @settle{turn}(ptr %c, ptr %s, ptr %total, ptr %scratch)")
    pointers = ", ".join(f"ptr %{x}" for x in ("c", "s", "found", "total", "scratch"))
    return function(f"i64 @join{turn}(i64 %count, {pointers})", text, f"i64 {again}")


def _kept_and_formed(program: Program) -> Iterator[tuple[int | None, list[int]]]:
    """For each pass the Δ that lies where the result will, if one does, and those to be formed."""
    reads = [reads_of(program, turn) for turn in range(passes(program))]
    kept: int | None = None
    for turn, (here, after) in enumerate(zip(reads, [*reads[1:], []], strict=True)):
        formed = [slot for slot in here if slot != kept]
        again = [slot for slot in formed if slot in after or repeats(program, turn)]
        if kept not in here and again:
            kept = again[0]
        yield kept, formed


def _form(text: LlvmText, slot: int, place: str, first: str, rows: str) -> None:
    """Form a tile of one Δ."""
    rank = text.add(f"load i64, ptr {text.at('%ranks', 'i64', slot)}")
    a, b, tile = (
        text.add(f"load ptr, ptr {where}")
        for where in (text.at("%a", "ptr", slot), text.at("%b", "ptr", slot), place)
    )
    skipped = text.add(f"mul i64 {first}, {rank}")
    text.do(
        f"call void @product(ptr {a}, ptr {b}, i64 {skipped}, ptr {tile}, i64 {rows}, "
        f"i64 %columns, i64 {rank})"
    )


def _product(real: str) -> list[str]:
    """Some rows of B·A, each number summed up in the order of the rank, with one rounding a term:
    its bits are the same on every processor.

    Panels go from the last to the first, and rows from the first to the last, as WIDTH numbers are
    written where a row may have room for fewer: what is too many is written over.
    """
    text = LlvmText()
    panels = text.add(f"sdiv i64 {text.add(f'add i64 %columns, {WIDTH - 1}')}, {WIDTH}")
    last = text.add(f"sub i64 {panels}, 1")
    with text.loop(panels) as loop:
        panel = text.add(f"sub i64 {last}, {loop.index}")
        depth = text.add(f"mul i64 {panel}, {text.add(f'mul i64 %rank, {WIDTH}')}")
        a = text.at("%a", real, depth)
        column = text.add(f"mul i64 {panel}, {WIDTH}")
        many = text.add(f"sub i64 %rows, {ROWS - 1}")
        with text.loop(many, step=ROWS) as rows:
            _rows(text, real, a, rows.index, column, ROWS)
        done = text.add(f"and i64 %rows, {-ROWS}")
        with text.loop("%rows", first=done) as rows:
            _rows(text, real, a, rows.index, column, 1)
    arguments = "ptr %a, ptr %b, i64 %skipped, ptr %out, i64 %rows, i64 %columns, i64 %rank"
    return function(f"void @product({arguments})", text)


def _rows(text: LlvmText, real: str, a: str, first: str, column: str, count: int) -> None:
    """Some rows of a panel."""
    many = vector(real)
    numbers = [text.add(f"add i64 {first}, {row}") for row in range(count)]
    starts = [
        text.at("%b", real, text.add(f"add i64 {text.add(f'mul i64 {n}, %rank')}, %skipped"))
        for n in numbers
    ]
    with text.loop("%rank") as loop:
        sums = [loop.carry(many, "zeroinitializer") for _ in range(count)]
        at = text.at(a, real, text.add(f"mul i64 {loop.index}, {WIDTH}"))
        right = text.add(f"load {many}, ptr {at}, align 8")
        for total, start in zip(sums, starts, strict=True):
            left = text.add(f"load {real}, ptr {text.at(start, real, loop.index)}")
            left = text.spread(real, left)
            fma = f"@llvm.fma.v{WIDTH}f{'32' if real == 'float' else '64'}"
            loop.next(
                total, text.add(f"call {many} {fma}({many} {left}, {many} {right}, {many} {total})")
            )
    for number, total in zip(numbers, sums, strict=True):
        at = text.add(f"add i64 {text.add(f'mul i64 {number}, %columns')}, {column}")
        text.do(f"store {many} {total}, ptr {text.at('%out', real, at)}, align 4")


# --- modules ---------------------------------------------------------------------------------


def _module(lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    return "\n".join([text, *_declared(text), _RARE])


_RARE = '!0 = !{!"branch_weights", i32 1, i32 2000}'
"""What branches that are rarely taken say, see LlvmText.where."""


def _declared(text: str) -> Iterator[str]:
    """The intrinsics in use."""
    for name, form in _INTRINSICS.items():
        if f"@llvm.{name}(" in text:
            yield f"declare {form.format(f'@llvm.{name}')}"


def _intrinsics() -> Iterator[tuple[str, str]]:
    for real, bits in (("float", 32), ("double", 64)):
        many, tail = vector(real), f"v{WIDTH}f{bits}"
        yield f"fabs.{tail}", f"{many} {{}}({many})"
        yield f"maximum.{tail}", f"{many} {{}}({many}, {many})"
        yield f"fma.{tail}", f"{many} {{}}({many}, {many}, {many})"
        yield f"vector.reduce.fmaximum.{tail}", f"{real} {{}}({many})"
        yield f"vector.reduce.fadd.{tail}", f"{real} {{}}({real}, {many})"
    for word in ("i32", "i64"):
        many, tail = vector(word), f"v{WIDTH}{word}"
        for how in ("umax", "umin", "smin", "smax"):
            yield f"{how}.{word}", f"{word} {{}}({word}, {word})"
            yield f"{how}.{tail}", f"{many} {{}}({many}, {many})"
        for how in ("umax", "umin", "or", "add"):
            yield f"vector.reduce.{how}.{tail}", f"{word} {{}}({many})"
        lanes = 128 // int(word[1:])
        few = f"<{lanes} x {word}>"
        compress = f"{few} {{}}({few}, <{lanes} x i1>, {few})"
        yield f"experimental.vector.compress.v{lanes}{word}", compress
        for how in ("cttz", "ctlz"):
            yield f"{how}.{word}", f"{word} {{}}({word}, i1)"
    yield "ctpop.i64", "i64 {}(i64)"
    yield "maximum.f64", "double {}(double, double)"
    yield "sqrt.f64", "double {}(double)"
    yield "memset.p0.i64", "void {}(ptr, i8, i64, i1)"


_INTRINSICS = dict(_intrinsics())
