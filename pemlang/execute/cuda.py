"""Loops on a GPU: read, copied there, computed, copied back and written, all at the same time.

A loop goes in chunks through two lanes, each with buffers of its own on both sides. While the
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

from pemlang.execute.cpu import CpuExecutor
from pemlang.execute.elementwise import block_of
from pemlang.execute.executor import DEFAULTS, ExecutionOptions, Progress, no_progress
from pemlang.execute.kernel_files import module_of
from pemlang.execute.loop import LoopPart
from pemlang.execute.result import ExecutionResult, Target
from pemlang.failures import NoGpu
from pemlang.kernels.builder import Builder
from pemlang.kernels.plan import FusedLoop, Plan
from pemlang.kernels.program import Program
from pemlang.kernels.rounding import settled
from pemlang.kernels.triton import runs_on_gpu
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import DTYPES, NATIVE, Bits, stored_dtype
from pemlang.tensorfiles.reader import TensorReader

if TYPE_CHECKING:
    import torch

CHUNK = 1 << 22
"""The most elements of a chunk: enough for the bus to be fast, few enough to overlap."""

ROOM = 1 << 28
"""The most bytes of host memory that the lanes take."""


class CudaExecutor:
    """Runs elementwise loops on a GPU, and everything else on threads of this process.

    Raises:
        NoGpu: torch, Triton or the device is not there, or they do not work together.
    """

    def __init__(self, options: ExecutionOptions = DEFAULTS, device: str = "cuda") -> None:
        """Open the device, as torch calls it. `cpu` works where Triton interprets its kernels, for
        tests."""
        self._cpu = CpuExecutor(options, open_gpu(device, options))

    def execute(
        self,
        plan: Plan,
        reader: TensorReader,
        targets: Sequence[Target] = (),
        progress: Progress = no_progress,
    ) -> ExecutionResult:
        """See Executor."""
        return self._cpu.execute(plan, reader, targets, progress)


def executor(options: ExecutionOptions) -> CudaExecutor:
    """See backends.BACKENDS."""
    return CudaExecutor(options)


def open_gpu(device: str = "cuda", options: ExecutionOptions = DEFAULTS) -> Gpu:
    """A device for CpuExecutor; raises NoGpu."""
    missing = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
    if missing:
        raise NoGpu(f"{missing[0]} is not installed", 'pip install "pemlang[cuda]"')
    import torch

    if device == "cpu":
        if os.environ.get("TRITON_INTERPRET") != "1":
            why = "Triton runs on a CPU as its interpreter only"
            raise NoGpu(why, "run it with TRITON_INTERPRET=1")
    elif not torch.cuda.is_available():
        raise NoGpu(
            "torch finds no GPU",
            f"{_INSTEAD}; or see what nvidia-smi lists, and install a torch made for CUDA: "
            "https://pytorch.org/get-started/locally",
        )
    gpu = Gpu(device, options)
    try:
        gpu.try_out()
    except Exception as error:  # whatever is wrong with drivers and compilers
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise NoGpu(f"Triton cannot work there: {first}", _INSTEAD) from error
    return gpu


_INSTEAD = "build on the CPU, which gives the same numbers"


def host_bytes(program: Program, chunk: int) -> int:
    """Host memory for a program and chunks of some elements. Torch rounds memory that it pins up
    to a power of two."""
    return _power(2 * chunk * _width(program))


def device_bytes(program: Program, chunk: int) -> int:
    """Device memory for the same: exact numbers are kept, and their squares made, in float64."""
    return 2 * chunk * (_width(program) + 24 * len(program.stores))


def _width(program: Program) -> int:
    """Bytes that are read and written for each element."""
    return sum(map(sum, program.widths))


def _power(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _torch_name(dtype: str) -> str:
    """What holds the bits of a dtype on the device: numbers where Triton reads them as such."""
    if dtype in (*NATIVE, "F16"):
        return DTYPES[dtype].torch
    return {1: "uint8", 2: "int16"}[DTYPES[dtype].size]


class Gpu:
    """A device with Triton. It is driven by one thread at a time."""

    def __init__(self, device: str, options: ExecutionOptions) -> None:
        import torch

        self.torch = torch
        self.block = options.block
        self._staged = 8 * options.block  # bytes of exact numbers brought to the host to look at
        self.name, self.cuda = device, device != "cpu"
        self.instance = 1024 if self.cuda else 1 << 16  # elements of one run of a kernel
        self._room, self._device_room = 0, 0
        self._arena: torch.Tensor | None = None

    def reserve(self, loops: Sequence[FusedLoop], room: int) -> int:
        """Bytes of host memory that it takes for some loops, at most `room`: what does not fit
        stays on the CPU."""
        free = self.torch.cuda.mem_get_info(self.name)[0] if self.cuda else 1 << 40
        self._room, self._device_room = min(room, ROOM + self._staged), free // 2
        needs = [self._host_bytes(x.program, self.chunk(x)) for x in loops if self.takes(x)]
        self._room = max(needs, default=0)
        return self._room

    def takes(self, loop: FusedLoop) -> bool:
        """Whether a loop has a kernel, and room for a chunk of it."""
        return loop.count > 0 and runs_on_gpu(loop.program) and self.chunk(loop) > 0

    def chunk(self, loop: FusedLoop) -> int:
        """Elements of a chunk of a loop: a whole number of blocks; 0 where none fits."""
        chunk = min(CHUNK, max(self.block, _power(loop.count)))
        while chunk >= self.block:
            fits = self._host_bytes(loop.program, chunk) <= self._room
            if fits and device_bytes(loop.program, chunk) <= self._device_room:
                return chunk
            chunk //= 2
        return 0

    def _host_bytes(self, program: Program, chunk: int) -> int:
        return host_bytes(program, chunk) + self._staged

    def run(self, part: LoopPart) -> None:
        """Run all of a loop; raises what `LoopPart.run` does."""
        with self._current():
            _LoopRun(self, part).run()

    def _current(self) -> AbstractContextManager[Any]:
        """The device as the one that Triton and new streams use."""
        current: AbstractContextManager[Any] = (
            self.torch.cuda.device(self.name) if self.cuda else nullcontext()
        )
        return current

    def try_out(self) -> None:
        """Run a kernel; raises whatever torch and Triton do where they cannot."""
        builder = Builder[str, str]()
        builder.store(builder.load("x", "F32", ()), "y", "F32")
        [call] = builder.calls()
        numbers = [self.numbers([], dtype) for dtype in ("F32", "F32", "F32", "F32", "F64")]
        with self._current():
            _kernel(call.program)[(1,)](*numbers, 1, BLOCK=self.instance, enable_fp_fusion=False)
            if self.cuda:
                self.torch.cuda.synchronize()

    def host(self) -> torch.Tensor:
        """The host memory of the lanes, which outlives a loop: pinning memory is slow."""
        size = self._room - self._staged
        if self._arena is None or self._arena.nbytes != size:
            self._arena = self.torch.empty(size, dtype=self.torch.uint8, pin_memory=self.cuda)
        return self._arena

    def empty(self, dtype: str, count: int) -> torch.Tensor:
        """Device memory for numbers as they are stored."""
        kind = getattr(self.torch, _torch_name(dtype))
        tensor: torch.Tensor = self.torch.empty(count, dtype=kind, device=self.name)
        return tensor

    def numbers(self, numbers: Sequence[float], dtype: str) -> torch.Tensor:
        """Constants on the device, at least one."""
        with np.errstate(over="ignore"):
            array = np.array([*numbers, 0.0]).astype(stored_dtype(dtype))
        tensor: torch.Tensor = self.torch.from_numpy(array).to(self.name)
        return tensor


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

    def __init__(self, gpu: Gpu, loop: FusedLoop, chunk: int, first: int) -> None:
        self._gpu, self._kernel = gpu, _kernel(loop.program)
        self._stream = gpu.torch.cuda.Stream() if gpu.cuda else None
        self._events = [gpu.torch.cuda.Event(blocking=True) for _ in range(2) if gpu.cuda]
        program = loop.program
        ins = [load.dtype for load in program.loads]
        outs = [store.dtype for store in program.stores]
        views = list(self._views([*ins, *outs], chunk, first))
        self._host = [tensor for tensor, _ in views]
        self.reading = [array for _, array in views[: len(ins)]]
        self.writing = [array for _, array in views[len(ins) :]]
        exact = [store.exact_dtype for store in program.stores]
        with self._on():
            self._device = [gpu.empty(dtype, chunk) for dtype in (*ins, *outs)]
            self.exact = [gpu.empty(dtype, chunk) for dtype in exact]
            self._constants = [gpu.numbers(loop.constants, dtype) for dtype in ("F32", "F64")]
        self.squares: list[torch.Tensor] = []

    def _views(
        self, dtypes: Sequence[str], chunk: int, first: int
    ) -> Iterator[tuple[torch.Tensor, Bits]]:
        """Host buffers from a byte on. Chunks are so large that every buffer is aligned."""
        arena = self._gpu.host()
        for dtype in dtypes:
            end = first + chunk * DTYPES[dtype].size
            tensor = arena[first:end]
            kind = getattr(self._gpu.torch, _torch_name(dtype))
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
                *self._device, *self.exact, *self._constants, size,
                BLOCK=self._gpu.instance, enable_fp_fusion=False,
            )  # fmt: skip
            self.squares = [self._squares(exact[:size], many) for exact in self.exact]
            for to, from_ in zip(self._host[ins:], self._device[ins:], strict=True):
                to[:size].copy_(from_[:size], non_blocking=True)
            self._record(1)

    def _squares(self, exact: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        square = exact.to(self._gpu.torch.float64, copy=True).square_()
        tensor: torch.Tensor = self._gpu.torch.segment_reduce(
            square, "sum", lengths=lengths, unsafe=True
        )
        return tensor

    def _record(self, event: int) -> None:
        if self._events:
            self._events[event].record()

    def wait(self, event: int) -> None:
        """Wait until the inputs of the last launch have been copied (0), or all is done (1)."""
        if self._events:
            self._events[event].synchronize()


class _LoopRun:
    """One loop on its way through the lanes."""

    def __init__(self, gpu: Gpu, part: LoopPart) -> None:
        self._part, self._loop, self._over = part, part.loop, False
        self._block = block_of(part.loop.program, gpu.block)
        self._chunk = gpu.chunk(part.loop)
        program = part.loop.program
        half = self._chunk * _width(program)
        self._lanes = [_Lane(gpu, part.loop, self._chunk, first) for first in (0, half)]
        self._dtypes = [store.dtype for store in program.stores]
        self._arounds = [store.base(part.loop.constants) for store in program.stores]

    def run(self) -> None:
        """Keep reading, the device and writing at work, each on a chunk of its own."""
        finishing: deque[Future[None]] = deque()
        count = self._loop.count
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            read = reader.submit(self._read, self._lanes[0], 0)
            for turn, at in enumerate(range(0, count, self._chunk)):
                lane, other = self._lanes[turn % 2], self._lanes[1 - turn % 2]
                if len(finishing) == 2:  # the older one is of this lane
                    finishing.popleft().result()
                self._have_read(read, finishing)
                lane.launch(self._size(at), [end - start for _, start, end in self._parts(at)])
                if at + self._chunk < count:
                    read = reader.submit(self._read, other, at + self._chunk)
                finishing.append(writer.submit(self._finish, lane, at))
            for future in finishing:
                future.result()

    def _have_read(self, read: Future[None], finishing: Sequence[Future[None]]) -> None:
        """Wait for a chunk; where it cannot be read, what is wrong before it is told first."""
        try:
            read.result()
        except Exception:
            for future in finishing:
                future.result()
            self._part.seen.output = self._loop.outputs[0][0]
            raise

    def _size(self, at: int) -> int:
        return min(self._chunk, self._loop.count - at)

    def _read(self, lane: _Lane, at: int) -> None:
        lane.wait(0)
        for index, array in enumerate(lane.reading):
            self._part.fetch(index, array[: self._size(at)], at)

    def _parts(self, at: int) -> Iterator[tuple[int, int, int]]:
        """The parts of a chunk that are looked at one by one, as on a CPU: the tensors in each
        block, with their block, their first element and their last, counted in the chunk."""
        size, block = self._size(at), self._block
        for first in range(0, size, block):
            for _, start, end in self._part.tensors(at + first, min(block, size - first)):
                yield first, first + start, first + end

    def _finish(self, lane: _Lane, at: int) -> None:
        """Look at a chunk when the device is done with it, and write it; nothing after a chunk
        with something wrong, which is what is told."""
        lane.wait(1)
        if self._over:
            return
        try:
            with np.errstate(all="ignore"):
                self._look(lane, at, [squares.tolist() for squares in lane.squares])
            for index, bits in enumerate(lane.writing):
                self._part.write(index, at, bits[: self._size(at)])
        except Exception:
            self._over = True
            raise

    def _look(self, lane: _Lane, at: int, squares: Sequence[Sequence[float]]) -> None:
        """What rounding does to each part, in the order in which a CPU comes by."""
        for number, (_, start, end) in enumerate(self._parts(at)):
            for index in range(len(self._dtypes)):
                self._judge(lane, index, at, start, end, squares[index][number])

    def _judge(self, lane: _Lane, index: int, at: int, start: int, end: int, square: float) -> None:
        """See a part by its square if that settles it, else number by number."""
        seen = settled(square, end - start, self._dtypes[index], self._arounds[index])
        if seen is not None:
            [(call, _, _)] = self._part.tensors(at + start, end - start)
            self._part.see(call, index, seen)
            return
        exact = lane.exact[index][start:end].cpu().numpy()
        if not self._loop.program.linear and not np.isfinite(exact).all():
            self._part.seen.output = self._loop.outputs[0][0]
            self._part.blame(at + start, end - start)
        self._part.look(index, at + start, exact, lane.writing[index][start:end])
