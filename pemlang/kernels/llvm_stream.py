"""A loop from files to files: blocks are read, computed and written, and nothing else runs between
them."""

from __future__ import annotations

from pemlang.kernels.histogram import APART, LEAST, PIECE
from pemlang.kernels.llvm_text import LlvmText, function
from pemlang.kernels.passes import kinds, passes, reads_of, repeats, scans
from pemlang.kernels.program import Program

BLOCK_NUMBERS = ("first", "size", "parts", "ends", "row")
"""What `@stream` is told of a block: where it begins in every file, in elements, and how many they
are; how many parts of tensors these are; where among all ends those of the parts begin; and the row
of the first part in what is found."""

FILE_NUMBERS = ("handle", "start", "width")
"""What it is told of a file: the open file; the byte where element 0 is, and the bytes of one."""


def stream(program: Program) -> list[str]:
    """`@stream`: all passes over some blocks.

    Takes how many blocks there are, and BLOCK_NUMBERS of each; FILE_NUMBERS of the inputs and of
    the outputs; the functions that read and write at a place, `pread` and `pwrite`; room for what
    the parts of one block find, `%here`; and the rest as `@tensors` does. What is found is added to
    what is there, row by row.

    Gives 0; or 1 where a file did not give or take all that it was to.
    """
    text = LlvmText()
    text.do("%stopped = alloca i64")
    text.do("store i64 0, ptr %stopped")
    inputs, outputs = len(program.loads), len(program.stores)
    with text.loop("%count") as block, text.where(_going(text)):
        record = text.at("%blocks", "i64", text.add(f"mul i64 {block.index}, {len(BLOCK_NUMBERS)}"))
        first, size, parts, ends, row = text.read("i64", record, range(len(BLOCK_NUMBERS)))
        _moved(text, "%pread", "%in", (0, inputs), first, size)
        with text.where(_going(text)):
            _computed(text, parts, text.at("%ends", "i64", ends), row, outputs + 1)
            _moved(text, "%pwrite", "%out", (inputs, outputs), first, size)
    result = text.add("load i64, ptr %stopped")
    pointers = "ptr %blocks, ptr %ends, ptr %files, ptr %pread, ptr %pwrite, ptr %in, ptr %out"
    apart = ", ".join(f"ptr %{name}, i64 %{name}_apart" for name in ("c", "s", "found"))
    head = f"i64 @stream(i64 %count, {pointers}, {apart}, ptr %here, ptr %scratch)"
    return function(head, text, f"i64 {result}")


def _going(text: LlvmText) -> str:
    """Whether nothing has stopped."""
    return text.add(f"icmp eq i64 {text.add('load i64, ptr %stopped')}, 0")


def _computed(text: LlvmText, parts: str, ends: str, row: str, finds: int) -> None:
    """All passes over the parts of a block, and what they found added up."""
    constants, steps, found = (
        text.at(f"%{name}", "double", text.add(f"mul i64 {row}, %{name}_apart"))
        for name in ("c", "s", "found")
    )
    text.do(
        f"call void @tensors(i64 {parts}, ptr {ends}, ptr %in, ptr %out, "
        f"ptr {constants}, i64 %c_apart, ptr {steps}, i64 %s_apart, "
        "ptr %here, i64 %found_apart, ptr %scratch)"
    )
    with text.loop(parts) as part:
        at = text.add(f"mul i64 {part.index}, %found_apart")
        totals, more = (text.at(table, "double", at) for table in (found, "%here"))
        both = [text.read("double", table, range(finds)) for table in (totals, more)]
        for number, (before, one) in enumerate(zip(*both, strict=True)):
            total = text.add(f"fadd double {before}, {one}")
            text.do(f"store double {total}, ptr {text.at(totals, 'double', number)}")


def _moved(
    text: LlvmText, how: str, data: str, files: tuple[int, int], first: str, size: str
) -> None:
    """Read or write a block of some files, and stop where that is not all of it.

    Args:
        text: the function.
        how: what reads or writes.
        data: the table of the blocks.
        files: the number of the first file, and how many they are.
        first, size: the block.
    """
    with text.loop(str(files[1])) as file:
        number = text.add(f"add i64 {file.index}, {files[0]}")
        _moved_one(text, how, (data, file.index), number, first, size)


def _moved_one(
    text: LlvmText, how: str, block: tuple[str, int | str], file: int | str, first: str, size: str
) -> None:
    """The same of one file, whose block is an entry of a table."""
    at = f"mul i64 {file}, {len(FILE_NUMBERS)}"
    record = text.at("%files", "i64", text.add(at))
    handle, start, width = text.read("i64", record, range(len(FILE_NUMBERS)))
    handle = text.add(f"trunc i64 {handle} to i32")
    place = text.add(f"add i64 {start}, {text.add(f'mul i64 {first}, {width}')}")
    bytes_ = text.add(f"mul i64 {size}, {width}")
    data, slot = block
    [memory] = text.read("ptr", data, [slot])
    count = text.add(f"call i64 {how}(i32 {handle}, ptr {memory}, i64 {bytes_}, i64 {place})")
    with text.where(text.add(f"icmp ne i64 {count}, {bytes_}")):
        text.do("store i64 1, ptr %stopped")


# --- a tensor that no block has room for -----------------------------------------------------


def large(program: Program) -> list[str]:
    """`@large`: all passes over one tensor, block by block.

    Takes where it begins in every file, in elements, how many they are, and how many of them a
    block has; and the rest as `@stream` does, with numbers of one tensor. Gives what that does.
    """
    text = LlvmText()
    text.do("%stopped = alloca i64")
    text.do("store i64 0, ptr %stopped")
    last = passes(program) - 1
    watched = ["0.0"]
    for turn in range(last):
        if repeats(program, turn):
            text.do(f"call void @start{turn}(ptr %s)")
            with text.where(text.add(f"icmp sge i64 %size, {LEAST}")):
                _sampled(text, program, turn)
        with text.repeat() as going:
            _over_blocks(text, program, turn)
            going.append(
                text.add(f"call i64 @settle{turn}(ptr %c, ptr %s, ptr %found, ptr %scratch)")
            )
        watched += text.read("double", "%found", [len(scans(program)[turn])])
    _over_blocks(text, program, last)
    watched += text.read("double", "%found", [len(program.stores)])
    total = "0.0"
    for more in watched:
        total = text.add(f"fadd double {total}, {more}")
    _keep(text, "%found", len(program.stores), total)
    result = text.add("load i64, ptr %stopped")
    numbers = "i64 %first, i64 %size, i64 %step"
    names = "files pread pwrite in out c s found here scratch".split()
    pointers = ", ".join(f"ptr %{name}" for name in names)
    return function(f"i64 @large({numbers}, {pointers})", text, f"i64 {result}")


def _over_blocks(text: LlvmText, program: Program, turn: int) -> None:
    """A pass over all blocks, and what it finds."""
    last, how = turn == passes(program) - 1, kinds(program, turn)
    count = 1 + (len(program.stores) if last else len(scans(program)[turn]))
    for index in range(count):
        _keep(text, "%found", index, nothing(how.get(index)))
    with text.loop("%size", step="%step") as block, text.where(_going(text)):
        left = text.add(f"sub i64 %size, {block.index}")
        size = text.add(f"call i64 @llvm.smin.i64(i64 {left}, i64 %step)")
        _part(text, program, turn, block.index, size)
        for index in range(count):
            [before], [more] = (
                text.read("double", table, [index]) for table in ("%found", "%here")
            )
            _keep(text, "%found", index, joined(text, how.get(index), before, more))


def _sampled(text: LlvmText, program: Program, turn: int) -> None:
    """Begin a pass that repeats with a sample of the tensor."""
    with text.loop("%size", step=APART) as piece:
        taken = piece.carry("i64", "0")
        left = text.add(f"sub i64 %size, {piece.index}")
        size = text.add(f"call i64 @llvm.smin.i64(i64 {left}, i64 {PIECE})")
        _part(text, program, turn, piece.index, size)
        piece.next(taken, text.add(f"add i64 {taken}, {size}"))
    text.do(f"call void @bracket{turn}(i64 {taken}, i64 %size, ptr %c, ptr %s, ptr %scratch)")


def _part(text: LlvmText, program: Program, turn: int, base: str, size: str) -> None:
    """A pass over some elements."""
    first = text.add(f"add i64 %first, {base}")
    for slot in reads_of(program, turn):
        _moved_one(text, "%pread", ("%in", slot), slot, first, size)
    with text.where(_going(text)):
        arguments = "ptr %in, ptr %out, ptr %c, ptr %s, ptr %here, ptr %scratch"
        text.do(f"call void @pass{turn}(i64 0, i64 {size}, i64 {base}, {arguments})")
        for slot in range(len(program.stores)) if turn == passes(program) - 1 else ():
            _moved_one(text, "%pwrite", ("%out", slot), len(program.loads) + slot, first, size)


def _keep(text: LlvmText, table: str, index: int, number: str) -> None:
    text.do(f"store double {number}, ptr {text.at(table, 'double', index)}")


def nothing(how: str | None) -> str:
    """What has been found in no part of a tensor."""
    return "0xFFF0000000000000" if how == "max" else "0.0"


def joined(text: LlvmText, how: str | None, one: str, other: str) -> str:
    """What has been found in two parts of a tensor."""
    if how == "max":
        return text.add(f"call double @llvm.maximum.f64(double {one}, double {other})")
    return text.add(f"fadd double {one}, {other}")
