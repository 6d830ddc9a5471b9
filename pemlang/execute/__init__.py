"""Running a plan: on the threads of the processors, and on a GPU."""

from __future__ import annotations

from pemlang.lazy import door

__getattr__ = door(
    __name__,
    executor="ExecutionOptions Executor no_progress",
    result="ExecutionResult FileTarget MemoryTarget OutputFailed OutputSeen",
    backends="BACKENDS",
    machine="for_one_command",
    cpu="CpuExecutor",
    crew="Shares phases shares useful_threads working_memory",
    cuda="Gpu host_bytes open_gpu",
    site="bytes_at_work run_call",
    loop="LoopPart",
    stream="Stream",
    elementwise="BLOCK CACHED Arena Kernel block_memory block_of get_ready rounded",
    algebra="NATIVE NativeAlgebra",
    helpers="Helpers Stopped",
    kernel_files="module_of",
)
