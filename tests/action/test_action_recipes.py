"""Which recipes the action tells of, and what it says of each."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from support import pem
from support.action import MARK, TEXT, Job
from support.processes import pem_on_the_path


def test_without_a_base_all_recipes_are_planned(job: Job) -> None:
    job.write("other.pem", TEXT)
    job.commit()
    assert job.run(PEM_BASE="").code == 0
    assert "**diff**" not in job.summary
    assert job.summary.count("**plan**") == 2
    done = job.run(PEM_BASE="0" * 40)
    assert done.code == 0
    assert "::warning title=pemlang::The base 000" in done.out


def test_new_deleted_and_untouched_recipes(job: Job) -> None:
    for name in ("gone.pem", "same.pem", "uses.pem", "sub/far.pem", "house/lib.pem"):
        job.write(name, TEXT.replace('"a"', '"../a"') if "/" in name else TEXT)
    job.write("old-cert.pem", "-----BEGIN CERTIFICATE-----\n")
    job.write("uses.pem", 'import "sub/far.pem" as far\n' + TEXT)
    job.write("sub/far.pem", 'import "../house/lib.pem" as lib\nlet x = 1\n')
    job.env["PEM_BASE"] = job.commit()
    job.write("new.pem", TEXT)
    job.write("new-cert.pem", "-----BEGIN CERTIFICATE-----\n")
    job.write("house/lib.pem", "let y = 2\n")
    for name in ("gone.pem", "old-cert.pem"):
        (job.folder / name).unlink()
    job.commit()
    assert job.run().code == 0
    titles = re.findall(r"^### `(.*)`$", job.comment, re.MULTILINE)
    assert titles == ["house/lib.pem", "new.pem", "sub/far.pem", "uses.pem", "gone.pem"]
    assert "### `new.pem`\n\nNew.\n\n<details>" in job.comment
    assert "### `gone.pem`\n\nDeleted." in job.comment
    assert "6 recipes checked" in job.comment


def test_a_lock_that_changed_is_a_change_of_its_recipes(job: Job) -> None:
    job.write("sub/s.pem", TEXT.replace('"a"', '"../a"'))
    job.env["PEM_BASE"] = job.commit()
    job.write("pem.lock", "{}")
    job.commit()
    job.run()
    assert re.findall(r"^### `(.*)`$", job.comment, re.MULTILINE) == ["r.pem"]


def test_locked_is_handed_on(job: Job) -> None:
    assert job.run(PEM_LOCKED="true").code == 1
    assert "PEM0801" in job.comment
    assert "<plan> <--locked>" in job.comment


def test_no_change_of_recipes_writes_nothing_but_updates_what_is_there(job: Job) -> None:
    job.env["PEM_BASE"] = job.git("rev-parse", "HEAD")
    assert job.run().code == 0
    assert job.github.written == []
    assert "No recipe, lock or adapter changed." in job.summary
    bot = {"type": "Bot", "login": "some[bot]"}
    job.github.comments = [{"id": 1, "user": bot, "body": MARK + "\nold"}]
    job.run()
    assert "No recipe, lock or adapter changed." in job.comment


def test_a_repository_without_recipes(job: Job) -> None:
    job.git("rm", "-q", "r.pem")
    job.env["PEM_BASE"] = job.commit()
    assert job.run().code == 0
    assert json.loads((job.folder / "pem.sarif").read_text())["runs"][0]["results"] == []
    assert "0 recipes checked" in job.summary


HOSTILE = [
    "`x` <img src=x> [a](b).pem",
    "``.pem",
    "-rf.pem",
    "a\n::error::b.pem",
    "$(touch pwned) `touch pwned`;.pem",
    "a@b <!-- -->.pem",
    "été \u202e.pem",
    "100%,a:b.pem",
]


def test_hostile_names(job: Job) -> None:
    for name in HOSTILE:
        job.write(name, TEXT + "let x = nothing\n")
    (job.folder / os.fsdecode(b"bad\xff.pem")).write_text(TEXT)
    job.commit()
    done = job.run(PEM_RECIPES="*.pem")
    assert done.code == 1
    assert not (job.folder / "pwned").exists()
    lines = [line for line in done.out.splitlines() if line]
    assert len(lines) == len(HOSTILE)
    assert all(line.startswith("::error file=") for line in lines)
    titles = [line[4:] for line in job.comment.splitlines() if line.startswith("### ")]
    assert len(titles) == len(HOSTILE) + 2
    for title in titles:
        fence = re.match("`+", title)
        assert fence and title.endswith(fence[0])
        assert fence[0] not in title[len(fence[0]) : -len(fence[0])]
    assert "### `` `x` <img src=x> [a](b).pem ``" in job.comment or "`` `x` <img" in job.comment
    assert r"a\u000a::error::b.pem" in job.comment
    assert r"bad\udcff.pem" in job.comment


def test_a_comment_is_cut_between_recipes(job: Job) -> None:
    for i in range(4):
        job.write(f"{i}.pem", TEXT)
    job.commit()
    assert job.run(PLAN_IS_LONG="yes").code == 0
    assert len(job.comment) <= 65536
    assert job.comment.count("<details>") == job.comment.count("</details>") == 1
    left_out = "There is no room left for `1.pem`, `2.pem`, `3.pem`, `r.pem`; "
    assert left_out in job.comment
    assert left_out not in job.summary


def test_a_diff_that_fails_is_said_and_is_no_failure(job: Job) -> None:
    assert job.run(DIFF_FAILS="yes").code == 0
    assert "`pem diff` failed:\n\n```text\nno such thing\n```" in job.comment


def test_the_base_is_fetched_where_the_checkout_is_shallow(job: Job, tmp_path: Path) -> None:
    origin = job.folder
    job.git("config", "uploadpack.allowAnySHA1InWant", "true")
    job.folder = tmp_path / "clone"
    job.folder.mkdir()
    job.git("clone", "-q", "--depth=1", origin.as_uri(), ".")
    assert job.run().code == 0
    assert "**diff**" in job.comment


def test_with_all_of_pem(job: Job, tmp_path: Path) -> None:
    pem_on_the_path(tmp_path)
    job.write("new.pem", TEXT)
    job.git("checkout", "-q", job.env["PEM_BASE"])
    assert pem("lock", "r.pem", folder=job.folder).code == 0
    job.env["PEM_BASE"] = job.commit()
    job.write("r.pem", TEXT.replace("0.5", "0.75"))
    job.write("new.pem", TEXT.replace("out", "other"))
    assert pem("lock", "r.pem", "new.pem", folder=job.folder).code == 0
    job.git("rm", "-q", "-r", "a")
    job.commit()
    done = job.run(PEM_LOCKED="true")
    assert done.code == 0, job.summary
    assert "failed" not in job.comment, job.comment
    changed = job.comment.partition("### `r.pem`")[2].partition("<details>")[0]
    assert "0.5" in changed and "0.75" in changed, job.comment


def test_the_action_ends_in_time(job: Job) -> None:
    done = job.run(PEM_MINUTES="0")
    assert done.code == 1
    assert "pem was ended: all of this may take 0 minutes" in job.comment
