"""The study of a tuning: its trials in a file of SQLite, each written down before it is built and
once it is over, so that a tuning that was killed goes on. The file may be anyone's."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, fields
from pathlib import Path
from typing import Literal, NamedTuple

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.disk import is_dir, is_special, open_plain
from pemlang.pipeline.tuning_space import Space
from pemlang.tensorfiles.jsons import parse_json

MAX_TRIALS = 10_000
MAX_BYTES = 64 << 20
MARK = 0x70656D74
"""The application id in the header of the file: `pemt`."""

_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC)
_TABLES = (
    "CREATE TABLE study (settings TEXT NOT NULL) STRICT",
    "CREATE TABLE trials (number INTEGER PRIMARY KEY, settings TEXT NOT NULL, hash TEXT NOT NULL, "
    "first REAL, numbers TEXT NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL) STRICT",
)


def beside(recipe: Path) -> Path:
    """Where the study of a recipe is, where nothing else is said."""
    return recipe.parent / f"{recipe.stem}.study"


class Objective(NamedTuple):
    """A number that a metric gives, and which way it is better."""

    name: str
    larger: bool

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        return "maximize" if self.larger else "minimize"


@dataclass(frozen=True)
class StudySettings:
    """What all trials of a study have in common.

    Attributes:
        output: which output of the recipe is measured, as the recipe writes its path.
        metric, first_metric: what measures it.
        objectives: what is to be best.
        sampler, seed: what chooses the values.
        space: what each param may be.
        fixed: the params that have one value.
    """

    output: str
    metric: str
    first_metric: str
    objectives: tuple[Objective, ...]
    sampler: str
    seed: int
    space: Space
    fixed: Mapping[str, str]

    def as_text(self) -> str:
        """As the file has them."""
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        told["objectives"] = {x.name: x.direction for x in self.objectives}
        told["space"] = {name: axis.told() for name, axis in self.space.items()}
        return json.dumps(told)

    def allow(self, trial: Trial) -> bool:
        """Whether a trial can be one of them."""
        return (
            trial.settings.keys() == self.space.keys()
            and all(axis.holds(trial.settings[name]) for name, axis in self.space.items())
            and trial.may_give(self.objectives)
        )


@dataclass(frozen=True)
class Trial:
    """Values, and what came of them. One that is not over has no numbers and no code.

    Attributes:
        number: counted from 1.
        settings: the values of the params that are tuned.
        hash: the semantic hash of the output, once it is known.
        first: what the first metric gave.
        numbers: what the metric gave, by name.
        code, message: why there are none: the metric or the build failed.
    """

    number: int
    settings: Mapping[str, str]
    hash: str = ""
    first: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    code: str = ""
    message: str = ""

    @property
    def is_pruned(self) -> bool:
        """Whether the first metric said that the other was not worth its time."""
        return self.code == PRUNED

    @property
    def is_failed(self) -> bool:
        return bool(self.code) and not self.is_pruned

    @property
    def is_measured(self) -> bool:
        """Whether a metric, or the first one, gave a number."""
        return bool(self.numbers) or self.first is not None

    @property
    def is_over(self) -> bool:
        return bool(self.code or self.numbers)

    def may_give(self, objectives: Sequence[Objective]) -> bool:
        """Whether its numbers, if it has any, can be what a metric gave by these objectives."""
        names = {objective.name for objective in objectives}
        is_one = names <= self.numbers.keys() and bool(self.hash) and not self.code
        return is_one or not self.numbers


PRUNED = "pruned"
"""Stands in the place of a code in a trial that is pruned."""


def best_of(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """The first of the best trials by one objective; by several, the first of each that no other
    is better than in one and as good as in all."""
    measured = {
        tuple((1 if x.larger else -1) * trial.numbers[x.name] for x in objectives): trial
        for trial in reversed(trials)
        if trial.numbers
    }
    if len(objectives) == 1:
        return [measured[max(measured)]] if measured else []
    front = [
        trial
        for values, trial in measured.items()
        if not any(
            other != values and all(b >= a for a, b in zip(values, other, strict=True))
            for other in measured
        )
    ]
    return sorted(front, key=lambda trial: trial.numbers[objectives[0].name])


def ranked(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """By one objective all that were measured, the best first; by several the Pareto front."""
    if len(objectives) > 1:
        return best_of(trials, objectives)
    [objective] = objectives
    measured = [trial for trial in trials if trial.numbers]
    return sorted(measured, key=lambda x: x.numbers[objective.name], reverse=objective.larger)


class StoredStudy(NamedTuple):
    """What is in a study.

    Attributes:
        settings: what its trials have in common, by the names of StudySettings.
        objectives: what is to be best.
        trials: all of them.
    """

    settings: Mapping[str, object]
    objectives: Sequence[Objective]
    trials: Sequence[Trial]


class Study:
    """A study whose file is open, and nobody else's meanwhile.

    Attributes:
        path: of the file.
        trials: all of them, by their number.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self._connection = path, connection
        self.trials: list[Trial] = []
        self._file: _FileThere | None = None

    def write(self, trials: Sequence[Trial]) -> None:
        """Write some trials down, new ones or ones that were there, all or none of them.

        Raises:
            Fault: PEM0512 there is no room, PEM0920 the file is gone or is another.
        """
        rows = [
            (x.number, json.dumps(dict(x.settings)), x.hash, x.first, json.dumps(dict(x.numbers)),
             x.code, x.message)
            for x in trials
        ]  # fmt: skip
        self.hold_there()
        with _told(self.path), _whole(self._connection):
            self._connection.executemany(
                "INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?)", rows
            )
        self._file = _file_at(self.path)
        for trial in trials:
            self.trials[trial.number - 1 : trial.number] = [trial]

    def hold_there(self) -> None:
        """Raise PEM0920 where the file is gone, or is another: what was written is lost."""
        if _file_at(self.path) != self._file:
            raise _unreadable(self.path, "it was removed or replaced by another program meanwhile")

    def begin(self, settings: StudySettings) -> None:
        """Take up a study of these settings, or begin one where the file is new or nothing in it
        was measured.

        Raises:
            Fault: PEM0512 there is no room, PEM0920 the file is no study that can be read, PEM0921
                it is of other settings.
        """
        with _told(self.path):
            if self._is_new():
                self._make(settings)
            else:
                self._take_up(settings)
            self._value("PRAGMA journal_mode = WAL")  # a trial waits for no disk
            self._file = _file_at(self.path)

    def read(self) -> StoredStudy:
        """What is in it, whatever it is of; raises PEM0920."""
        with _told(self.path):
            if self._is_new():
                raise _unreadable(self.path, "there is nothing in it")
            stored = self._read()
            with _written_by_us(self.path):
                directions = _object(json.dumps(stored["objectives"]))
                objectives = tuple(Objective(x, y == "maximize") for x, y in directions.items())
                if not objectives or not all(x.may_give(objectives) for x in self.trials):
                    raise ValueError
        return StoredStudy(stored, objectives, self.trials)

    def _is_new(self) -> bool:
        """Whether there is nothing in the file yet; raises PEM0920 for what is none of ours."""
        mark = self._value("PRAGMA application_id")
        tables = [sql for (sql,) in self._connection.execute("SELECT sql FROM sqlite_master")]
        if (mark, tables) not in ((0, []), (MARK, list(_TABLES))):
            raise _unreadable(self.path, "it is a database of another kind")
        return not tables

    def _make(self, settings: StudySettings) -> None:
        with _whole(self._connection):
            for table in _TABLES:
                self._connection.execute(table)
            self._connection.execute("INSERT INTO study VALUES (?)", (settings.as_text(),))
            self._connection.execute(f"PRAGMA application_id = {MARK}")

    def _begin_anew(self, settings: StudySettings) -> None:
        with _whole(self._connection):
            self._connection.execute("DELETE FROM trials")
            self._connection.execute("UPDATE study SET settings = ?", (settings.as_text(),))
        self.trials = []

    def _take_up(self, settings: StudySettings) -> None:
        stored = self._read()
        now = _object(settings.as_text())
        differing = {name: (stored[name], now[name]) for name in now if stored[name] != now[name]}
        if differing and any(trial.is_measured for trial in self.trials):
            raise _of_another(self.path, differing)
        if differing:
            self._begin_anew(settings)
        with _written_by_us(self.path):
            if not all(map(settings.allow, self.trials)):
                raise ValueError

    def _read(self) -> Mapping[str, object]:
        """What its trials have in common, as the file has it, and the trials."""
        rows = self._connection.execute("SELECT settings FROM study LIMIT 2").fetchall()
        with _written_by_us(self.path):
            [(text,)] = rows
            stored = _object(text)
            query = f"SELECT * FROM trials ORDER BY number LIMIT {MAX_TRIALS + 1}"
            self.trials = list(map(_trial, self._connection.execute(query)))
            numbers = [trial.number for trial in self.trials]
            if numbers != list(range(1, len(numbers) + 1)):
                raise ValueError
            if stored.keys() != {each.name for each in fields(StudySettings)}:
                raise ValueError
        if len(self.trials) > MAX_TRIALS:
            raise _unreadable(self.path, f"it has more than {MAX_TRIALS} trials")
        return stored

    def _value(self, query: str) -> object:
        [(value,)] = self._connection.execute(query).fetchall()
        return value


def is_study(path: Path) -> bool:
    """Whether a file says that it is a study: `pemt` in the header of SQLite."""
    try:
        with open_plain(path) as file:
            header = file.read(72)
    except OSError:
        return False
    return header.startswith(b"SQLite format 3\0") and header[68:] == MARK.to_bytes(4, "big")


class _FileThere(NamedTuple):
    """Which file there is, and its bytes: those of a study change as it is written alone."""

    device: int
    inode: int
    size: int


def _file_at(path: Path) -> _FileThere | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _FileThere(status.st_dev, status.st_ino, status.st_size)


@contextmanager
def open_study(path: Path) -> Iterator[Study]:
    """The study in a file, which is made where it is not there.

    Raises:
        Fault: PEM0920 it cannot be read, PEM0922 another process is at work on it.
    """
    if is_special(path) or is_dir(path):
        raise _unreadable(path, "it is no file")
    if not is_dir(path.parent):
        raise _unreadable(path, f"there is no folder {visible(path.parent)}")
    with _told(path):
        if path.exists() and path.stat().st_size > MAX_BYTES:
            raise _unreadable(path, f"it is larger than {MAX_BYTES >> 20} MiB")
        connection = _connected(path)
    try:
        with _told(path):
            for pragma in (
                "trusted_schema = OFF", "cell_size_check = ON", "locking_mode = EXCLUSIVE",
                "synchronous = NORMAL",
            ):  # fmt: skip
                connection.execute(f"PRAGMA {pragma}").fetchall()
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")  # the lock stays until the connection is closed
        yield Study(path, connection)
    finally:
        connection.close()


def _connected(path: Path) -> sqlite3.Connection:
    whole = path.absolute()  # SQLite knows other things by names such as `:memory:`
    if not path.exists() or os.access(path, os.W_OK):
        return sqlite3.connect(whole, isolation_level=None, timeout=0)
    log = whole.with_name(f"{whole.name}-wal")
    if log.exists() and log.stat().st_size:
        raise _unreadable(path, "it is read-only, and another process has not brought it to an end")
    name = f"{whole.as_uri()}?mode=ro&immutable=1"  # a lock would have to be written
    return sqlite3.connect(name, isolation_level=None, timeout=0, uri=True)


@contextmanager
def _whole(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # SQLite may have given it up itself
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What SQLite or the system says of a file, in words."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", 0)
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Fault(
                "PEM0922",
                f"another process is at work on the study {visible(path)}",
                "wait for it, or give this one a file of its own: --study FILE",
            ) from None
        if code in _NO_ROOM:
            raise Fault(
                "PEM0512",
                f"cannot write the study {visible(path)}: {visible(error)}",
                "make room for it, and run the same command: the trials that it has stay",
            ) from None
        raise _unreadable(path, visible(error)) from None
    except (sqlite3.Error, OSError, UnicodeError) as error:
        raise _unreadable(path, visible(error)) from None


def _unreadable(path: Path, why: str) -> Fault:
    return Fault(
        "PEM0920",
        f"{visible(path)} is no study that pem can go on with: {why}",
        "give another file: --study FILE",
    )


@contextmanager
def _written_by_us(path: Path) -> Iterator[None]:
    """What is raised inside means that a file is someone else's: PEM0920."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
        raise _unreadable(path, "what is in it was not written by pem tune") from None


def _of_another(path: Path, differing: Mapping[str, tuple[object, object]]) -> Fault:
    notes = [
        f"{SETTING_TITLES[name]}: {visible(json.dumps(was, ensure_ascii=False))} in the study, "
        f"{visible(json.dumps(now, ensure_ascii=False))} now"
        for name, (was, now) in differing.items()
    ]
    return Fault(
        "PEM0921",
        f"the study {visible(path)} is of another "
        + " and another ".join(SETTING_TITLES[name] for name in differing),
        "give what it began with, or begin another: --study FILE",
        notes,
    )


SETTING_TITLES = {
    "output": "output", "metric": "metric", "first_metric": "first metric",
    "objectives": "objective", "sampler": "sampler", "seed": "seed",
    "space": "range of values", "fixed": "value that is set",
}  # fmt: skip


def _trial(row: tuple[object, ...]) -> Trial:
    """A trial by its row; raises one of what is caught above for what is none."""
    number, settings, hash, first, numbers, code, message = row
    if not isinstance(number, int):
        raise TypeError
    values = _object(numbers)
    return Trial(
        number,
        {name: _text(value) for name, value in _object(settings).items()},
        _text(hash),
        None if first is None else finite(first),
        {name: finite(value) for name, value in values.items()},
        _text(code),
        _text(message),
    )


def finite(value: object) -> float:
    """A number of JSON; raises TypeError for what is none, ValueError for one without end,
    OverflowError for a whole one that no float can be."""
    if type(value) is bool or not isinstance(value, int | float):
        raise TypeError
    if not math.isfinite(value):
        raise ValueError
    return float(value)


def _object(value: object) -> dict[str, object]:
    parsed = parse_json(_text(value).encode(), halves=True)  # as of a name that is no UTF-8
    if not isinstance(parsed, dict):
        raise TypeError
    return parsed


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
