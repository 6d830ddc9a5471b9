"""What a metric may do: fail, hang, print for ever, leave processes behind."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest
from support.tuning import killing, stocked

from pemlang.diagnostics import Fault
from pemlang.pipeline import MetricRuns, metric_of, numbers_of

OUTPUT = Path("/some/where else")


def measure(text: str, *names: str, seconds: float = 20) -> dict[str, float]:
    return dict(MetricRuns().measure(metric_of(text, names or ("s",), seconds), OUTPUT))


def wrong(text: str, *names: str, seconds: float = 20) -> Fault:
    with pytest.raises(Fault) as caught:
        measure(text, *names, seconds=seconds)
    return caught.value


def is_there(process: int) -> bool:
    """Whether a process runs; one that was ended and that nobody waited for does not."""
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


def gone(process: int) -> bool:
    """Whether a process ends within some seconds."""
    until = time.monotonic() + 5
    while is_there(process) and time.monotonic() < until:
        time.sleep(0.02)
    return not is_there(process)


@pytest.mark.parametrize(
    ("printed", "number"),
    [
        (b"0.87\n", 0.87),
        (b"epoch 1\n\n  87\n\n", 87.0),
        (b"-1e-3", -0.001),
        (b'{"s": 3, "t": "x"}\n', 3.0),
        (b'log\n{"t": [1], "s": 3}', 3.0),
        (b'{\n "s": 3\n}\n', 3.0),
        ("0.5 % \N{SNOWMAN}\n.5".encode(), 0.5),
    ],
)
def test_numbers_are_read_from_the_last_line_or_from_json(printed: bytes, number: float) -> None:
    assert numbers_of(printed, ["s"]) == {"s": number}


@pytest.mark.parametrize(
    "printed",
    [
        b"", b"\n \n", b"none", b"1 2", b"0.5 %", b"[1]", b'"1"', b"true", b"null", b"{}", b"\xff",
        b'{"s": null}', b'{"s": true}', b'{"s": "1"}', b'{"s": [1]}', b"nan", b"NaN", b"inf",
        b"-Infinity", b'{"s": NaN}', b"1e999", b"[" * 100_000, b"1" * 5000, b"0.5\nthe end",
    ],
)  # fmt: skip
def test_what_is_no_number_is_none(printed: bytes) -> None:
    with pytest.raises(Fault) as caught:
        numbers_of(printed, ["s"])
    assert caught.value.code == "PEM0911"


def test_several_numbers_have_names() -> None:
    assert numbers_of(b'{"a": 1, "b": 2, "c": 3}', ["c", "a"]) == {"c": 3.0, "a": 1.0}
    with pytest.raises(Fault, match="its JSON has no d"):
        numbers_of(b'{"a": 1}', ["a", "d"])
    with pytest.raises(Fault, match="its last line is '1'"):
        numbers_of(b"1", ["a", "d"])


def test_the_path_of_the_output_is_one_word_and_no_shell_reads_it(tmp_path: Path) -> None:
    assert measure('sh -c \'test "$1" = "/some/where else" && echo 1\' sh {output}') == {"s": 1.0}
    metric = metric_of(f"echo $(touch {tmp_path}/x) {{output}} `touch {tmp_path}/y`", ["s"], 9)
    with pytest.raises(Fault):
        MetricRuns().measure(metric, Path("1; touch z"))
    assert not list(tmp_path.iterdir())


def test_a_metric_reads_nothing_from_the_terminal() -> None:
    assert measure("sh -c 'cat; echo 1' {output}") == {"s": 1.0}


def test_a_metric_that_hangs_is_ended_with_all_it_has_started(tmp_path: Path) -> None:
    body = f"sh -c 'sleep 60 & echo $! > {tmp_path}/inner; sleep 60' {{output}}"
    began = time.monotonic()
    assert wrong(body, seconds=0.3).code == "PEM0912"
    assert time.monotonic() - began < 5
    assert gone(int((tmp_path / "inner").read_text()))


def test_a_metric_that_hangs_in_groups_of_its_own_is_ended(tmp_path: Path) -> None:
    """As `torchrun` has its workers."""
    body = f"setsid sh -c 'setsid sleep 60 & echo $! > {tmp_path}/inner; sleep 60' {{output}}"
    began = time.monotonic()
    assert wrong(body, seconds=0.5).code == "PEM0912"
    assert time.monotonic() - began < 5
    assert gone(int((tmp_path / "inner").read_text()))


def test_what_a_metric_leaves_at_work_is_ended(tmp_path: Path) -> None:
    began = time.monotonic()
    body = f"sh -c 'sleep 60 & echo $! > {tmp_path}/inner; echo 1' {{output}}"
    assert measure(body) == {"s": 1.0}
    assert time.monotonic() - began < 5
    assert gone(int((tmp_path / "inner").read_text()))


@pytest.mark.parametrize("where", ["", ">&2"])
def test_a_metric_that_prints_for_ever_is_ended(where: str) -> None:
    assert wrong(f"sh -c 'yes {where}' {{output}}").code == "PEM0913"


def test_much_that_is_printed_keeps_the_number_at_its_end() -> None:
    assert measure(
        'sh -c \'head -c 9000000 /dev/zero | tr "\\\\0" "x"; echo; echo 5\' {output}'
    ) == {"s": 5.0}


@pytest.mark.parametrize("printed", ["'1' + '0' * 70_000", "'loss' + ' ' * 70_000 + '5'"])
def test_the_end_of_a_line_alone_is_no_number(printed: str) -> None:
    assert wrong(f'{sys.executable} -c "print({printed})" {{output}}').code == "PEM0911"


def test_the_last_words_of_a_failure_are_told() -> None:
    fault = wrong("sh -c 'echo early >&2; echo \"no \\033[31m data\" >&2; exit 7' {output}")
    assert (str(fault), fault.notes) == (
        "the metric failed, with exit code 7", ("no \\u001b[31m data",)
    )  # fmt: skip


def test_metrics_that_are_ended_end_at_once_and_no_other_begins(tmp_path: Path) -> None:
    runs = MetricRuns()
    metric = metric_of(f"sh -c 'echo $$ > {tmp_path}/own; sleep 60' {{output}}", ["s"], 60)
    told: list[Fault] = []

    def at_work() -> None:
        try:
            runs.measure(metric, OUTPUT)
        except Fault as fault:
            told.append(fault)

    threads = [threading.Thread(target=at_work) for _ in range(2)]
    for thread in threads:
        thread.start()
    while not (tmp_path / "own").exists() or not (tmp_path / "own").read_text():
        time.sleep(0.01)
    runs.end()
    for thread in threads:
        thread.join(5)
    began = time.monotonic()
    at_work()
    assert time.monotonic() - began < 5
    assert [fault.code for fault in told] == ["PEM0910"] * 3


def test_a_function_prints_what_it_likes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(
        "import os, numpy\n"
        "def one(output):\n    print(7)\n    os.write(1, b'8')\n    return numpy.float32(2)\n"
        "def two(output):\n    return {'s': numpy.int64(len(output)), 'more': 'words'}\n"
        "def wrong(output):\n    raise OSError('no data')\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.getenv("PYTHONPATH", "")]))
    assert measure("own:one") == {"s": 2.0}
    assert measure("own:two") == {"s": float(len(str(OUTPUT)))}
    assert wrong("own:wrong").notes == ("OSError: no data",)
    assert wrong("own:none").code == wrong("nowhere:none").code == "PEM0910"


def test_words_of_a_metric_are_held_to_be_some() -> None:
    for text in ("", "{output}", "score.py", "sh -c 'echo {output}", "a:b:c", "a.b"):
        with pytest.raises(Fault) as caught:
            metric_of(text, ["s"], 1)
        assert caught.value.code == "PEM0903"


@pytest.mark.parametrize(
    "text",
    [
        "echo {output} | tail -1", "echo {output}; echo 1", "echo {output} && echo 1",
        "echo {output} > log", "echo {output} 2>&1", "sort <log {output}", "echo {output} &",
        "echo 'a b' {output} >>log", 'echo "\\"" | cat {output}',
    ],
)  # fmt: skip
def test_what_only_a_shell_understands_is_told_with_the_command_for_one(text: str) -> None:
    with pytest.raises(Fault, match="is for a shell") as caught:
        metric_of(text, ["s"], 1)
    for_shell = caught.value.help.removeprefix("let one run it: ")
    assert metric_of(for_shell, ["s"], 1).words == ("sh", "-c", text)


def test_signs_of_shells_in_quotes_are_words() -> None:
    for text in ("echo '|' {output}", 'echo "; >" {output}', "echo \\| a|b x=>y {output}"):
        metric_of(text, ["s"], 1)


def test_what_begins_a_metric_is_held_to_be_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text("print(5)")
    Path("own.sh").write_text("echo 6")
    for name, number in (("own.py", 5), ("./own.sh", 6)):
        fault = wrong(f"{name} {{output}}")
        assert fault.code == "PEM0903"
        assert measure(fault.help.removeprefix("say what runs it: ")) == {"s": number}
    fault = wrong("X=7 env {output}")
    for_shell = fault.help.partition("for a shell: ")[2].replace("env", "printenv X #")
    assert measure(for_shell) == {"s": 7}
    assert wrong("own.py:one").help == "write own:one"


def test_a_metric_is_not_orphaned_when_pem_is_killed(tmp_path: Path) -> None:
    stocked(tmp_path)
    killing(tmp_path, at=1, then="sleep 60")
    assert gone(int((tmp_path / "metric-pid").read_text()))
