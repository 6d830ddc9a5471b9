"""A loop from files to files: blocks are read, computed and written, and nothing else runs between
them."""

from __future__ import annotations

from pemlang.kernels.llvm_text import LlvmText, function
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
        record = text.at("%files", "i64", text.add(f"mul i64 {number}, {len(FILE_NUMBERS)}"))
        handle, start, width = text.read("i64", record, range(len(FILE_NUMBERS)))
        handle = text.add(f"trunc i64 {handle} to i32")
        place = text.add(f"add i64 {start}, {text.add(f'mul i64 {first}, {width}')}")
        bytes_ = text.add(f"mul i64 {size}, {width}")
        [block] = text.read("ptr", data, [file.index])
        count = text.add(f"call i64 {how}(i32 {handle}, ptr {block}, i64 {bytes_}, i64 {place})")
        with text.where(text.add(f"icmp ne i64 {count}, {bytes_}")):
            text.do("store i64 1, ptr %stopped")
