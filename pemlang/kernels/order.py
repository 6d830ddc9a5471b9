"""The order in which the steps of a program run: that in which the fewest elements are alive."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pemlang.kernels.step import Step


def best_order(steps: Sequence[Step]) -> list[int]:
    """An order of steps, arguments first, that keeps few elements alive at a time."""
    orders = (_on_demand(steps), _eagerly(steps))
    return min(orders, key=lambda order: _most_alive(steps, order))


def _on_demand(steps: Sequence[Step]) -> list[int]:
    """The steps in an order in which each is done just before something needs it: few values are
    alive at a time where one result is made from many inputs."""
    order: list[int] = []
    done: set[int] = set()
    for goal, step in enumerate(steps):
        pending = [goal] if step.is_result else []
        while pending:
            missing = [arg for arg in steps[pending[-1]].args if arg not in done]
            if missing:
                pending.append(missing[-1])  # what has been summed so far comes last
                continue
            number = pending.pop()
            if number not in done:
                done.add(number)
                order.append(number)
    return order


def _eagerly(steps: Sequence[Step]) -> list[int]:
    """The steps in an order in which each is done as soon as it can be: few values are alive at a
    time where many results are made from few inputs, or in step."""
    users: list[list[int]] = [[] for _ in steps]
    waits = [len(set(step.args)) for step in steps]
    for number, step in enumerate(steps):
        for arg in set(step.args):
            users[arg].append(number)
    order: list[int] = []
    for source, step in enumerate(steps):
        pending = [source] if not step.args else []
        while pending:
            number = pending.pop()
            order.append(number)
            for user in reversed(users[number]):
                waits[user] -= 1
                if waits[user] == 0:
                    pending.append(user)
    return order


def _most_alive(steps: Sequence[Step], order: Sequence[int]) -> int:
    """The most elements that are alive at once in an order, at one byte each."""
    last = {arg: number for number in order for arg in steps[number].args}
    alive = most = 0
    for number in order:
        step = steps[number]
        alive += math.prod(step.shape)
        most = max(most, alive)
        alive -= sum(math.prod(steps[a].shape) for a in set(step.args) if last[a] == number)
        if step.is_result:
            alive -= math.prod(step.shape)
    return most
