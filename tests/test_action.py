"""The action for pull requests: its script as a process, in repositories made for it, before a
server that answers as GitHub does."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import lora

ROOT = Path(__file__).parent.parent
MARK = "<!-- pemlang review -->"
TOKEN = "ghs_not-to-be-seen"
TEXT = 'adapter a = "a"\nparam w: number = 0.5\nsave w * a to "out"\n'
PEM = """#!/bin/sh
case "$1" in
  check) exec {python} -m pemlang "$@" ;;
  diff) test -n "$DIFF_FAILS" && echo "no such thing" >&2 && exit 1 ;;
  plan) test -n "$PLAN_IS_LONG" && head -c 40000 /dev/zero | tr '\\0' x && exit 0 ;;
esac
printf '%s' "**$1**:"; printf ' <%s>' "$@"; echo
"""


@dataclass
class GitHub:
    """A stand-in: the comments of one pull request, and the requests that came.

    `failures` are answers to give first, by method and the end of the path.
    """

    comments: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    failures: dict[str, list[int]] = field(default_factory=dict)
    login: str | None = None
    page: int = 2
    address: str = ""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any, str]:
        """Status, JSON and Link header."""
        failing = self.failures.get(method) or []
        if failing:
            return failing.pop(0), {"message": "no"}, ""
        if path == "/user":
            return (200, {"login": self.login}, "") if self.login else (403, {}, "")
        if method == "GET":
            at = int((re.search(r"[?&]page=(\d+)", path) or [0, "1"])[1])
            shown = self.comments[(at - 1) * self.page : at * self.page]
            more = at * self.page < len(self.comments)
            there = f"{self.address}/repos/o/r/issues/7/comments?per_page=100&page={at + 1}"
            return 200, shown, f'<{there}>; rel="next", <{there}>; rel="last"' if more else ""
        if method == "PATCH":
            number = int(path.rpartition("/")[2])
            [comment] = [c for c in self.comments if c["id"] == number]
            comment |= body
            return 200, comment, ""
        user = {"type": "User" if self.login else "Bot", "login": self.login or "some[bot]"}
        self.comments.append({"id": 100 + len(self.comments), "user": user} | body)
        return 201, self.comments[-1], ""

    @property
    def written(self) -> list[str]:
        return [method for method, _, _ in self.asked if method != "GET"]


@pytest.fixture
def github() -> Iterator[GitHub]:
    known = GitHub()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            known.asked.append((self.command, self.path, self.headers.get("Authorization")))
            status, found, link = known.answer(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Link", link)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        do_GET = do_POST = do_PATCH = handle_any

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        known.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield known
        server.shutdown()


@dataclass
class Job:
    """A job in a repository of two commits or more."""

    folder: Path
    github: GitHub
    env: dict[str, str]

    def git(self, *words: str) -> str:
        return subprocess.run(
            ["git", *words],
            cwd=self.folder,
            env=self.env,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-qm", "x", "--allow-empty")
        return self.git("rev-parse", "HEAD")

    def run(self, **env: str) -> subprocess.CompletedProcess[str]:
        summary = self.folder.parent / "summary.md"
        summary.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, str(ROOT / "ci" / "review.py")],
            cwd=self.folder,
            env=self.env | env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert TOKEN not in done.stdout + done.stderr + summary.read_text()
        return done

    @property
    def summary(self) -> str:
        return (self.folder.parent / "summary.md").read_text()

    @property
    def comment(self) -> str:
        [found] = [c["body"] for c in self.github.comments if c["body"].startswith(MARK)]
        assert isinstance(found, str)
        return found


@pytest.fixture
def job(tmp_path: Path, github: GitHub) -> Job:
    """One recipe, whose weight the second commit changes."""
    pem = tmp_path / "bin" / "pem"
    pem.parent.mkdir()
    pem.write_text(PEM.replace("{python}", shlex.quote(sys.executable)))
    pem.chmod(0o755)
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": 7}}))
    env = {
        "PATH": f"{pem.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "GITHUB_API_URL": github.address,
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_TOKEN": TOKEN,
        "PEM_LOCKED": "false",
    }
    for name in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{name}_NAME": "A", f"GIT_{name}_EMAIL": "a@example.com"}
    found = Job(tmp_path / "repo", github, env)
    found.folder.mkdir()
    found.git("init", "-q")
    lora(found.folder / "a", 1)
    found.write("r.pem", TEXT)
    found.env["PEM_BASE"] = found.commit()
    found.write("r.pem", TEXT.replace("0.5", "0.75"))
    found.commit()
    return found


def test_one_comment_is_written_and_then_kept_up_to_date(job: Job) -> None:
    done = job.run()
    assert done.returncode == 0, done.stdout + done.stderr
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
    assert job.run().returncode == 1
    assert job.github.written == ["POST", "PATCH"]
    assert "nothing is called `nothing`" in job.comment
    assert {token for _, _, token in job.github.asked} == {f"Bearer {TOKEN}"}


def test_a_wrong_recipe_fails_after_the_comment(job: Job) -> None:
    job.write("r.pem", TEXT + "let x = nothing\n")
    job.commit()
    done = job.run(PEM_SARIF_FILE="out/found.sarif")
    assert done.returncode == 1
    assert "::error file=r.pem,line=4," in done.stdout
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
    assert (done.returncode, job.github.written) == (0, ["POST"] * 3)
    assert "::warning" not in done.stdout


@pytest.mark.parametrize(("status", "times"), [(403, 1), (500, 3)])
def test_a_comment_that_cannot_be_written_is_a_warning(job: Job, status: int, times: int) -> None:
    job.github.failures = {"POST": [status] * 9}
    done = job.run()
    assert (done.returncode, job.github.written) == (0, ["POST"] * times)
    assert f"::warning title=pemlang::The comment could not be written: {status}" in done.stdout
    assert "**diff**" in job.summary


def test_no_network_is_a_warning(job: Job) -> None:
    done = job.run(GITHUB_API_URL="http://127.0.0.1:1")
    assert done.returncode == 0
    assert "::warning title=pemlang::The comment could not be written: " in done.stdout


def test_a_page_elsewhere_is_not_asked_for(job: Job) -> None:
    job.github.comments = [{"id": i, "user": None, "body": "x"} for i in range(5)]
    there, job.github.address = job.github.address, "http://127.0.0.1:1/elsewhere"
    assert job.run(GITHUB_API_URL=there).returncode == 0
    assert job.github.written == ["POST"]


@pytest.mark.parametrize(
    "env", [{"PEM_COMMENT": "false"}, {"GITHUB_EVENT_PATH": "/nowhere"}], ids=["off", "push"]
)
def test_without_a_comment_there_is_the_summary(job: Job, env: dict[str, str]) -> None:
    assert job.run(**env).returncode == 0
    assert job.github.asked == []
    assert "**diff**" in job.summary


def test_without_a_base_all_recipes_are_planned(job: Job) -> None:
    job.write("other.pem", TEXT)
    job.commit()
    assert job.run(PEM_BASE="").returncode == 0
    assert "**diff**" not in job.summary
    assert job.summary.count("**plan**") == 2
    done = job.run(PEM_BASE="0" * 40)
    assert done.returncode == 0
    assert "::warning title=pemlang::The base 000" in done.stdout


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
    assert job.run().returncode == 0
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
    assert job.run(PEM_LOCKED="true").returncode == 1
    assert "PEM0801" in job.comment
    assert "<plan> <--locked>" in job.comment


def test_no_change_of_recipes_writes_nothing_but_updates_what_is_there(job: Job) -> None:
    job.env["PEM_BASE"] = job.git("rev-parse", "HEAD")
    assert job.run().returncode == 0
    assert job.github.written == []
    assert "No recipe, lock or adapter changed." in job.summary
    bot = {"type": "Bot", "login": "some[bot]"}
    job.github.comments = [{"id": 1, "user": bot, "body": MARK + "\nold"}]
    job.run()
    assert "No recipe, lock or adapter changed." in job.comment


def test_a_repository_without_recipes(job: Job) -> None:
    job.git("rm", "-q", "r.pem")
    job.env["PEM_BASE"] = job.commit()
    assert job.run().returncode == 0
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
    assert done.returncode == 1
    assert not (job.folder / "pwned").exists()
    lines = [line for line in done.stdout.splitlines() if line]
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
    assert job.run(PLAN_IS_LONG="yes").returncode == 0
    assert len(job.comment) <= 65536
    assert job.comment.count("<details>") == job.comment.count("</details>") == 1
    left_out = "There is no room left for `1.pem`, `2.pem`, `3.pem`, `r.pem`; "
    assert left_out in job.comment
    assert left_out not in job.summary


def test_a_diff_that_fails_is_said_and_is_no_failure(job: Job) -> None:
    assert job.run(DIFF_FAILS="yes").returncode == 0
    assert "`pem diff` failed:\n\n```text\nno such thing\n```" in job.comment


def test_the_base_is_fetched_where_the_checkout_is_shallow(job: Job, tmp_path: Path) -> None:
    origin = job.folder
    job.git("config", "uploadpack.allowAnySHA1InWant", "true")
    job.folder = tmp_path / "clone"
    job.folder.mkdir()
    job.git("clone", "-q", "--depth=1", origin.as_uri(), ".")
    assert job.run().returncode == 0
    assert "**diff**" in job.comment


def test_with_all_of_pem(job: Job, tmp_path: Path) -> None:
    pem = tmp_path / "bin" / "pem"
    pem.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pemlang "$@"\n')
    job.write("new.pem", TEXT)
    job.git("checkout", "-q", job.env["PEM_BASE"])
    subprocess.run(["pem", "lock", "r.pem"], cwd=job.folder, env=job.env, check=True)
    job.env["PEM_BASE"] = job.commit()
    job.write("r.pem", TEXT.replace("0.5", "0.75"))
    job.write("new.pem", TEXT.replace("out", "other"))
    subprocess.run(["pem", "lock", "r.pem", "new.pem"], cwd=job.folder, env=job.env, check=True)
    job.git("rm", "-q", "-r", "a")
    job.commit()
    done = job.run(PEM_LOCKED="true")
    assert done.returncode == 0, job.summary
    assert "failed" not in job.comment, job.comment
    changed = job.comment.partition("### `r.pem`")[2].partition("<details>")[0]
    assert "0.5" in changed and "0.75" in changed, job.comment


# --- action.yml -----------------------------------------------------------------------------------

ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())


def test_no_input_is_pasted_into_a_script() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        assert "run" not in step or step["shell"] == "bash"


def test_every_input_is_said_and_used() -> None:
    steps = json.dumps(ACTION["runs"]["steps"])
    assert set(ACTION["inputs"]) == set(re.findall(r"inputs\.([\w-]+)", steps))
    for name, told in ACTION["inputs"].items():
        assert told["description"].endswith("."), name
        assert "default" in told


def test_the_script_reads_what_the_action_hands_it() -> None:
    script = (ROOT / "ci/review.py").read_text()
    [review] = [step for step in ACTION["runs"]["steps"] if step.get("name") == "Review"]
    handed = {name for name in review["env"] if name.startswith("PEM_")}
    assert handed == set(re.findall(r"\bPEM_\w+", script))
