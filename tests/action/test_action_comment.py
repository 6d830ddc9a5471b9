"""The one comment of the action: found, written, kept up to date; what goes wrong on the way."""

from __future__ import annotations

import json

import pytest
from support.action import MARK, TEXT, TOKEN, Job


def test_one_comment_is_written_and_then_kept_up_to_date(job: Job) -> None:
    done = job.run()
    assert done.code == 0, done.out + done.err
    assert job.github.written == ["POST"]
    base = job.env["PEM_BASE"]
    assert "1 recipe checked: nothing is wrong." in job.comment
    assert f"### `r.pem`\n\n**diff**: <diff> <--format> <markdown> <--> <{base}:r.pem> <r.pem>" in (
        job.comment
    )
    plan = "**plan**: <plan> <--format> <markdown> <--> <r.pem>"
    assert f"<details><summary>Plan</summary>\n\n{plan}\n\n</details>" in job.comment
    assert job.summary == job.comment
    job.write("r.pem", TEXT + "let x = nothing\n")
    job.commit()
    assert job.run().code == 1
    assert job.github.written == ["POST", "PATCH"]
    assert "nothing is called `nothing`" in job.comment
    assert {token for _, _, token in job.github.asked} == {f"Bearer {TOKEN}"}


def test_a_wrong_recipe_fails_after_the_comment(job: Job) -> None:
    job.write("r.pem", TEXT + "let x = nothing\n")
    job.commit()
    done = job.run(PEM_SARIF_FILE="out/found.sarif")
    assert done.code == 1
    assert "::error file=r.pem,line=4," in done.out
    [result] = json.loads((job.folder / "out/found.sarif").read_text())["runs"][0]["results"]
    assert result["ruleId"] == "PEM0206"
    assert "```text\nr.pem:4:9: error[PEM0206]: nothing is called `nothing`" in job.comment


def test_the_comment_is_found_on_a_later_page_among_those_of_others(job: Job) -> None:
    someone = {"type": "User", "login": "someone"}
    bot = {"type": "Bot", "login": "some[bot]"}
    job.github.comments = [
        {"id": 1, "user": someone, "body": "x"},
        {"id": 2, "user": someone, "body": "> " + MARK},
        {"id": 3, "user": bot, "body": None},
        {"id": 4, "user": None, "body": "x"},
        {"id": 5, "user": bot, "body": MARK + "\nold"},
    ]
    job.run()
    assert job.github.written == ["PATCH"]
    assert "nothing is wrong" in job.github.comments[4]["body"]


def test_the_mark_in_a_comment_of_another_is_not_ours(job: Job) -> None:
    for login, user in ((None, "User"), ("me", "User")):
        job.github.login = login
        job.github.asked.clear()
        another = {"id": 1, "user": {"type": user, "login": "someone"}, "body": MARK}
        job.github.comments = [another]
        job.run()
        job.run()
        assert job.github.written == ["POST", "PATCH"]
        assert another["body"] == MARK


def test_what_fails_is_tried_twice_more(job: Job) -> None:
    job.github.failures = {"POST": [500, 502]}
    done = job.run()
    assert (done.code, job.github.written) == (0, ["POST"] * 3)
    assert "::warning" not in done.out


@pytest.mark.parametrize(("status", "times"), [(403, 1), (500, 3)])
def test_a_comment_that_cannot_be_written_is_a_warning(job: Job, status: int, times: int) -> None:
    job.github.failures = {"POST": [status] * 9}
    done = job.run()
    assert (done.code, job.github.written) == (0, ["POST"] * times)
    assert f"::warning title=pemlang::The comment could not be written: {status}" in done.out
    assert "**diff**" in job.summary


def test_no_network_is_a_warning(job: Job) -> None:
    done = job.run(GITHUB_API_URL="http://127.0.0.1:1")
    assert done.code == 0
    assert "::warning title=pemlang::The comment could not be written: " in done.out


def test_a_page_elsewhere_is_not_asked_for(job: Job) -> None:
    job.github.comments = [{"id": i, "user": None, "body": "x"} for i in range(5)]
    address, job.github.address = job.github.address, "http://127.0.0.1:1/elsewhere"
    assert job.run(GITHUB_API_URL=address).code == 0
    assert job.github.written == ["POST"]


@pytest.mark.parametrize(
    "env", [{"PEM_COMMENT": "false"}, {"GITHUB_EVENT_PATH": "/nowhere"}], ids=["off", "push"]
)
def test_without_a_comment_there_is_the_summary(job: Job, env: dict[str, str]) -> None:
    assert job.run(**env).code == 0
    assert job.github.asked == []
    assert "**diff**" in job.summary
