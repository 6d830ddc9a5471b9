"""Threads that help others with parts of a site."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from support import lora, recipe

import pemlang
from pemlang.execute import (
    ExecutionOptions,
    Helpers,
    NativeAlgebra,
    Shares,
    Stopped,
    phases,
    shares,
    working_memory,
)
from pemlang.kernels import NUMPY, Builder, Plan, truncated_svd


@contextmanager
def some(count: int) -> Iterator[Helpers]:
    """Helpers, of which so many are there."""
    helpers = Helpers()
    threads = [threading.Thread(target=helpers.help) for _ in range(count)]
    for thread in threads:
        thread.start()
    yield helpers
    helpers.end(count)
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("count", [0, 1, 5])
def test_each_part_is_done_once(count: int) -> None:
    with some(count) as helpers:
        for parts in (0, 1, 2, 1000):
            done: list[int] = []
            helpers.each(done.append, range(parts))
            assert sorted(done) == list(range(parts))


def test_those_who_are_free_take_part() -> None:
    """Two parts that wait for each other are done where somebody helps."""
    meeting = threading.Barrier(2, timeout=10)
    with some(1) as helpers:
        for _ in range(3):
            helpers.each(lambda _: meeting.wait() and None, range(2))


def test_what_a_helper_cannot_do_is_told_where_it_was_asked_for() -> None:
    """And what the one it helps cannot do only when nobody is at work any longer on memory of
    its."""
    meeting, over = threading.Barrier(2, timeout=10), []

    def fail(part: int) -> None:
        meeting.wait()
        if threading.current_thread() is threading.main_thread():
            raise ZeroDivisionError
        time.sleep(0.1)
        over.append(part)
        raise ValueError(part)

    with some(1) as helpers:
        with pytest.raises(ZeroDivisionError):
            helpers.each(fail, range(2))
        assert len(over) == 1

        def only_there(part: int) -> None:
            meeting.wait()
            if threading.current_thread() is not threading.main_thread():
                raise ValueError(part)

        with pytest.raises(ValueError, match=r"0|1"):
            helpers.each(only_there, range(2))


def test_a_helper_treats_numbers_as_the_one_it_helps() -> None:
    """What is an error there is one here: NumPy keeps that for each thread."""
    meeting = threading.Barrier(2, timeout=10)

    def overflow(_: int) -> None:
        meeting.wait()
        if threading.current_thread() is not threading.main_thread():
            np.float64(1e300) * np.float64(1e300)

    with some(1) as helpers, np.errstate(over="raise"), pytest.raises(FloatingPointError):
        helpers.each(overflow, range(2))


def test_nobody_goes_on_with_what_is_not_waited_for() -> None:
    helpers = Helpers()
    helpers.end(0)
    with pytest.raises(Stopped):
        helpers.each(print, range(2))


def test_a_decomposition_has_the_same_bits_whoever_helps() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((1500, 900)).astype("f4")
    square = float(np.sum(x.astype("f8") ** 2))
    wanted = truncated_svd(x, 20, square, algebra=NativeAlgebra(Helpers()))
    exact = truncated_svd(x, 20, square, algebra=NUMPY)[1]
    np.testing.assert_allclose(wanted[1], exact, rtol=1e-3)
    for count in (1, 3):
        with some(count) as helpers:
            for ours, theirs in zip(
                truncated_svd(x, 20, square, algebra=NativeAlgebra(helpers)), wanted, strict=True
            ):
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("columns", [640, 641])
def test_one_site_has_the_same_bits_on_any_number_of_threads(tmp_path: Path, columns: int) -> None:
    """Also where rows are no whole vectors, of which a tile ends within one."""
    for seed, name in enumerate("ab"):
        lora(tmp_path / name, seed, {"layers.0.q": (700, columns)}, rank=8)
    text = 'adapter a = "a"\nadapter b = "b"\n'
    text += 'save della([a, b], density=0.5, rank=4) to "della"\n'
    text += 'save ties([a, b], density=0.5, rank=4) to "ties"\n'
    loaded = pemlang.load(recipe(tmp_path, text))
    made = {}
    for threads in (1, 2, 4, 16):
        options = pemlang.BuildOptions(threads=threads, force=True)
        built = loaded.build(tmp_path / str(threads), options=options)
        made[threads] = [
            (output.path / "adapter_model.safetensors").read_bytes() for output in built.outputs
        ]
    assert all(bits == made[1] for bits in made.values())


def over_deltas(tmp_path: Path, rows: int, columns: int, sites: int) -> Plan:
    """A merge over Δ, of files that need not be written to be planned."""
    layers = {f"layers.{layer}.q": (rows, columns) for layer in range(sites)}
    for seed, name in enumerate("ab"):
        lora(tmp_path / name, seed, layers, rank=1)
    text = 'adapter a = "a"\nadapter b = "b"\nsave ties([a, b], density=0.5, rank=1) to "o"\n'
    return pemlang.load(recipe(tmp_path, text)).programs()[0].plan


def test_large_sites_are_at_work_at_once_while_there_is_room(tmp_path: Path) -> None:
    """A matrix of each is in memory; threads for which there is no room help."""
    [large] = phases(over_deltas(tmp_path, 3000, 2000, 5))
    assert shares(large, 1 << 40, ExecutionOptions(threads=1), 5) == Shares(1, 0)
    assert shares(large, 1 << 40, ExecutionOptions(threads=2), 5) == Shares(2, 0)
    assert shares(large, 1 << 40, ExecutionOptions(threads=16), 5) == Shares(5, 11)
    assert shares(large, 1 << 40, ExecutionOptions(threads=16), 1) == Shares(1, 15)
    one = working_memory(large, 1, ExecutionOptions(threads=16))
    little = one + (1 << 23)
    scarce = shares(large, little, ExecutionOptions(threads=16), 5)
    assert scarce.work == 1
    assert 1 < scarce.help < 15
    [huge] = phases(over_deltas(tmp_path / "huge", 30000, 20000, 5))
    assert shares(huge, 1 << 40, ExecutionOptions(threads=16), 5) == Shares(2, 14)
    given = ExecutionOptions(threads=16, memory=1 << 40)
    assert shares(huge, 1 << 40, given, 5) == Shares(5, 11)


def test_small_sites_come_after_large_ones_and_have_a_thread_each(tmp_path: Path) -> None:
    layers = {"large": (3000, 2000), "small": (300, 200)}
    for seed, name in enumerate("ab"):
        lora(tmp_path / name, seed, {f"layers.0.{x}": y for x, y in layers.items()}, rank=1)
    text = 'adapter a = "a"\nadapter b = "b"\nsave ties([a, b], density=0.5, rank=1) to "o"\n'
    plan = pemlang.load(recipe(tmp_path, text)).programs()[0].plan
    large, small = phases(plan)
    assert [len(phase.sites) for phase in (large, small)] == [1, 1]
    assert shares(small, 1 << 40, ExecutionOptions(threads=8), 8) == Shares(8, 0)


def test_nobody_helps_where_nothing_has_parts() -> None:
    builder = Builder()
    builder.store(builder.load("x", "BF16", (64, 64)), "y", "BF16")
    plan = Plan(sites=tuple(builder.calls()))  # type: ignore[arg-type]
    assert shares(plan, 1 << 30, ExecutionOptions(threads=8), 1).help == 0


@pytest.mark.parametrize("threads", [1, 4])
def test_a_thread_that_cannot_work_fails_the_build(
    tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An output of which nobody has written a part is not there."""

    def none(size: int = 0) -> None:
        raise MemoryError

    monkeypatch.setattr("pemlang.execute.cpu.Arena", none)
    lora(tmp_path / "a", 0)
    made = pemlang.load(recipe(tmp_path, 'adapter a = "a"\nsave 2 * a to "out"\n'))
    with pytest.raises(MemoryError):
        made.build(options=pemlang.BuildOptions(threads=threads))
    assert not (tmp_path / "out").exists()
