"""Spans on a GPU: read, copied there, computed, copied back and written, all at the same time.

A span goes in chunks through two lanes, each with buffers of its own on both sides. While the
device works on a chunk, the next one is read into the other lane and the one before is written
from it. A chunk is a whole number of the CPU's blocks, so that what is seen of each block does
not depend on how many of them it is.
"""

from __future__ import annotations

import importlib.util
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pemlang.diagnostics import Fault, visible
from pemlang.execute.elementwise import BLOCK, block_of
from pemlang.execute.kernel_files import module_of
from pemlang.execute.local import SpanPart
from pemlang.kernels.program import Builder, Program, exact_dtypes, loaded, slot, stored
from pemlang.kernels.rounding import settled
from pemlang.kernels.triton import runs_on_gpu
from pemlang.lower.plan import Sink, Span
from pemlang.tensorfiles.dtypes import stored_dtype
from pemlang.tensorfiles.safetensors import ITEM_SIZE

if TYPE_CHECKING:
    import torch

Bits = NDArray[np.generic]

CHUNK = 1 << 22
"""The most elements of a chunk: enough for the bus to be fast, few enough to overlap."""

ROOM = 1 << 28
"""The most bytes of host memory that the lanes take."""

_STAGED = 8 * BLOCK  # bytes of exact numbers that are brought to the host to be looked at

_TORCH = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "int16",
          "F8_E5M2": "uint8", "F8_E4M3": "uint8"}  # fmt: skip


def open_gpu(device: str = "cuda") -> Gpu:
    """A device for `stream.run`.

    Args:
        device: as torch calls it. `cpu` works where Triton interprets its kernels, for tests.

    Raises:
        Fault: PEM0522 torch, Triton or the device is not there, or they do not work together.
    """
    missing = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
    if missing:
        raise _no_gpu(f"{missing[0]} is not installed", 'pip install "pemlang[cuda]"')
    import torch

    if device == "cpu":
        if os.environ.get("TRITON_INTERPRET") != "1":
            raise _no_gpu("Triton runs on a CPU as its interpreter only", "TRITON_INTERPRET=1")
    elif not torch.cuda.is_available():
        raise _no_gpu(
            "torch finds no GPU",
            f"{_INSTEAD}; or see what nvidia-smi lists, and install a torch made for CUDA: "
            "https://pytorch.org/get-started/locally",
        )
    gpu = Gpu(device)
    try:
        gpu.try_out()
    except Exception as error:  # whatever is wrong with drivers and compilers
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise _no_gpu(f"Triton cannot work there: {visible(first)}", _INSTEAD) from error
    return gpu


_INSTEAD = "build on the CPU, which gives the same numbers"


def _no_gpu(why: str, help: str) -> Fault:
    return Fault("PEM0522", f"this build was to run on a GPU, but {why}", help)


def host_bytes(program: Program, chunk: int) -> int:
    """Host memory for a program and chunks of some elements. Torch rounds memory that it pins up
    to a power of two."""
    return _power(2 * chunk * _width(program)) + _STAGED


def device_bytes(program: Program, chunk: int) -> int:
    """Device memory for the same: exact numbers are kept, and their squares made, in float64."""
    return 2 * chunk * (_width(program) + 24 * len(stored(program)))


def _width(program: Program) -> int:
    """Bytes that are read and written for each element."""
    return sum(ITEM_SIZE[dtype] for dtype in (*loaded(program), *stored(program)))


def _power(number: int) -> int:
    return 1 << (number - 1).bit_length()


class Gpu:
    """A device with Triton, as `stream.run` wants it. It is driven by one thread at a time."""

    def __init__(self, device: str) -> None:
        import torch

        self.torch = torch
        self.name, self.cuda = device, device != "cpu"
        self.instance = 1024 if self.cuda else 1 << 16  # elements of one run of a kernel
        self._room, self._device_room = 0, 0
        self._arena: torch.Tensor | None = None

    def reserve(self, spans: Sequence[Span], room: int) -> int:
        """Bytes of host memory that it takes for some spans, at most `room`: what does not fit
        stays on the CPU."""
        free = self.torch.cuda.mem_get_info(self.name)[0] if self.cuda else 1 << 40
        self._room, self._device_room = min(room, ROOM + _STAGED), free // 2
        needs = [host_bytes(s.program, self.chunk(s)) for s in spans if self.takes(s)]
        self._room = max(needs, default=0)
        return self._room

    def takes(self, span: Span) -> bool:
        """Whether a span has a kernel, and room for a chunk of it."""
        return span.count > 0 and runs_on_gpu(span.program) and self.chunk(span) > 0

    def chunk(self, span: Span) -> int:
        """Elements of a chunk of a span: a whole number of blocks; 0 where none fits."""
        chunk = min(CHUNK, max(BLOCK, _power(span.count)))
        while chunk >= BLOCK:
            fits = host_bytes(span.program, chunk) <= self._room
            if fits and device_bytes(span.program, chunk) <= self._device_room:
                return chunk
            chunk //= 2
        return 0

    def run(self, part: SpanPart) -> None:
        """Run all of a span; raises what `SpanPart.run` does."""
        with self._current():
            _Run(self, part).run()

    def _current(self) -> AbstractContextManager[Any]:
        """The device as the one that Triton and new streams use."""
        current: AbstractContextManager[Any] = (
            self.torch.cuda.device(self.name) if self.cuda else nullcontext()
        )
        return current

    def try_out(self) -> None:
        """Run a kernel; raises whatever torch and Triton do where they cannot."""
        builder = Builder()
        builder.store(builder.load("x", "F32", ()), "y", "F32")
        [piece] = builder.pieces()
        numbers = [self.numbers([], dtype) for dtype in ("F32", "F32", "F32", "F32", "F64")]
        with self._current():
            _kernel(piece.program)[(1,)](*numbers, 1, BLOCK=self.instance, enable_fp_fusion=False)
            if self.cuda:
                self.torch.cuda.synchronize()

    def host(self) -> torch.Tensor:
        """The host memory of the lanes, which outlives a span: pinning memory is slow."""
        size = self._room - _STAGED
        if self._arena is None or self._arena.nbytes != size:
            self._arena = self.torch.empty(size, dtype=self.torch.uint8, pin_memory=self.cuda)
        return self._arena

    def empty(self, dtype: str, count: int) -> torch.Tensor:
        """Device memory for numbers as they are stored."""
        kind = getattr(self.torch, _TORCH[dtype])
        found: torch.Tensor = self.torch.empty(count, dtype=kind, device=self.name)
        return found

    def numbers(self, numbers: Sequence[float], dtype: str) -> torch.Tensor:
        """Constants on the device, at least one."""
        with np.errstate(over="ignore"):
            array = np.array([*numbers, 0.0]).astype(stored_dtype(dtype))
        found: torch.Tensor = self.torch.from_numpy(array).to(self.name)
        return found


@cache
def _kernel(program: Program) -> Any:
    return module_of(program).kernel


class _Lane:
    """Buffers of one chunk, and what the device does with them, in order.

    Attributes:
        reading, writing: the host's arrays, for each input and output slot.
        exact: for each output slot the device's numbers before they were rounded.
        squares: for each output slot the sums of their squares, for each part asked for.
    """

    def __init__(self, gpu: Gpu, span: Span, chunk: int, first: int) -> None:
        self._gpu, self._kernel = gpu, _kernel(span.program)
        self._stream = gpu.torch.cuda.Stream() if gpu.cuda else None
        self._events = [gpu.torch.cuda.Event(blocking=True) for _ in range(2) if gpu.cuda]
        ins, outs = loaded(span.program), stored(span.program)
        views = list(self._views([*ins, *outs], chunk, first))
        self._host = [tensor for tensor, _ in views]
        self.reading = [array for _, array in views[: len(ins)]]
        self.writing = [array for _, array in views[len(ins) :]]
        with self._on():
            self._device = [gpu.empty(dtype, chunk) for dtype in (*ins, *outs)]
            self.exact = [gpu.empty(dtype, chunk) for dtype in exact_dtypes(span.program)]
            self._consts = [gpu.numbers(span.consts, dtype) for dtype in ("F32", "F64")]
        self.squares: list[torch.Tensor] = []

    def _views(
        self, dtypes: Sequence[str], chunk: int, first: int
    ) -> Iterator[tuple[torch.Tensor, Bits]]:
        """Host buffers from a byte on. Chunks are so large that every buffer is aligned."""
        arena = self._gpu.host()
        for dtype in dtypes:
            end = first + chunk * ITEM_SIZE[dtype]
            tensor = arena[first:end]
            kind = getattr(self._gpu.torch, _TORCH[dtype])
            yield tensor.view(kind), tensor.numpy().view(stored_dtype(dtype))
            first = end

    def _on(self) -> AbstractContextManager[Any]:
        cuda: AbstractContextManager[Any] = (
            nullcontext() if self._stream is None else self._gpu.torch.cuda.stream(self._stream)
        )
        return cuda

    def launch(self, size: int, lengths: Sequence[int]) -> None:
        """Give the device a chunk that has been read, to be copied there, computed and copied
        back; returns before it is.

        Args:
            size: elements.
            lengths: of the parts whose squares are wanted.
        """
        ins = len(self.reading)
        grid = (-(-size // self._gpu.instance),)
        with self._on():
            # First, while the stream is idle: this copy is waited for.
            many = self._gpu.torch.tensor(lengths, device=self._gpu.name)
            for to, from_ in zip(self._device[:ins], self._host[:ins], strict=True):
                to[:size].copy_(from_[:size], non_blocking=True)
            self._record(0)
            self._kernel[grid](
                *self._device, *self.exact, *self._consts, size,
                BLOCK=self._gpu.instance, enable_fp_fusion=False,
            )  # fmt: skip
            self.squares = [self._squares(exact[:size], many) for exact in self.exact]
            for to, from_ in zip(self._host[ins:], self._device[ins:], strict=True):
                to[:size].copy_(from_[:size], non_blocking=True)
            self._record(1)

    def _squares(self, exact: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        square = exact.to(self._gpu.torch.float64, copy=True).square_()
        found: torch.Tensor = self._gpu.torch.segment_reduce(
            square, "sum", lengths=lengths, unsafe=True
        )
        return found

    def _record(self, event: int) -> None:
        if self._events:
            self._events[event].record()

    def wait(self, event: int) -> None:
        """Wait until the inputs of the last launch have been copied (0), or all is done (1)."""
        if self._events:
            self._events[event].synchronize()


class _Run:
    """One span on its way through the lanes."""

    def __init__(self, gpu: Gpu, part: SpanPart) -> None:
        self._part, self._span, self._over = part, part.span, False
        self._chunk = gpu.chunk(part.span)
        program = part.span.program
        half = self._chunk * _width(program)
        self._lanes = [_Lane(gpu, part.span, self._chunk, first) for first in (0, half)]
        self._stored = stored(program)
        self._arounds = [0.0] * len(self._stored)
        for instr in program.instrs:
            if instr.op == "store" and len(instr.attrs) > 1:
                self._arounds[slot(instr.attrs[0])] = part.span.consts[slot(instr.attrs[1])]

    def run(self) -> None:
        """Keep reading, the device and writing at work, each on a chunk of its own."""
        finishing: deque[Future[None]] = deque()
        count = self._span.count
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            read = reader.submit(self._read, self._lanes[0], 0)
            for turn, at in enumerate(range(0, count, self._chunk)):
                lane, other = self._lanes[turn % 2], self._lanes[1 - turn % 2]
                if len(finishing) == 2:  # the older one is of this lane
                    finishing.popleft().result()
                self._have_read(read, finishing)
                lane.launch(self._size(at), [end - one for _, one, end in self._parts(at)])
                if at + self._chunk < count:
                    read = reader.submit(self._read, other, at + self._chunk)
                finishing.append(writer.submit(self._finish, lane, at))
            for one in finishing:
                one.result()

    def _have_read(self, read: Future[None], finishing: Sequence[Future[None]]) -> None:
        """Wait for a chunk; where it cannot be read, what is wrong before it is told first."""
        try:
            read.result()
        except Exception:
            for one in finishing:
                one.result()
            self._part.found.output = self._span.outputs[0][0]
            raise

    def _size(self, at: int) -> int:
        return min(self._chunk, self._span.count - at)

    def _read(self, lane: _Lane, at: int) -> None:
        lane.wait(0)
        for index, array in enumerate(lane.reading):
            self._part.fetch(index, array[: self._size(at)], at)

    def _parts(self, at: int) -> Iterator[tuple[int, int, int]]:
        """The parts of a chunk that are looked at one by one, as on a CPU: the tensors in each
        block, with their block, their first element and their last, counted in the chunk."""
        size, block = self._size(at), block_of(self._span.program)
        for first in range(0, size, block):
            for _, one, end in self._part.pieces(at + first, min(block, size - first)):
                yield first, first + one, first + end

    def _finish(self, lane: _Lane, at: int) -> None:
        """Look at a chunk when the device is done with it, and write it; nothing after a chunk
        with something wrong, which is what is told."""
        lane.wait(1)
        if self._over:
            return
        try:
            with np.errstate(all="ignore"):
                self._look(lane, at, [found.tolist() for found in lane.squares])
            for index, bits in enumerate(lane.writing):
                self._part.write(index, at, bits[: self._size(at)])
        except Exception:
            self._over = True
            raise

    def _look(self, lane: _Lane, at: int, squares: Sequence[Sequence[float]]) -> None:
        """What rounding does to each part, in the order in which a CPU comes by."""
        for number, (_, one, end) in enumerate(self._parts(at)):
            for index in range(len(self._stored)):
                self._judge(lane, index, at, one, end, squares[index][number])

    def _judge(self, lane: _Lane, index: int, at: int, one: int, end: int, square: float) -> None:
        """See a part by its square if that settles it, else number by number."""
        seen = settled(square, end - one, self._stored[index], self._arounds[index])
        if seen is not None:
            [(piece, _, _)] = self._part.pieces(at + one, end - one)
            sink = piece.outputs[index]
            assert isinstance(sink, Sink)
            self._part.found.see(sink, seen)
            return
        exact = lane.exact[index][one:end].cpu().numpy()
        if not self._span.program.linear and not np.isfinite(exact).all():
            self._part.found.output = self._span.outputs[0][0]
            self._part.blame(at + one, end - one)
        self._part.look(index, at + one, exact, lane.writing[index][one:end])
