"""What the commands answer about aggregates and sources that are refused or stopped, and about those that are not."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest
from stack_fixture import TestProject
from worker_fixture import rowcast

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def run(project: TestProject) -> Run:
    """A `rowcast` command on a project with two items: one refused, and one with an id that has to be encoded."""
    project.apply()
    insert = (
        "INSERT INTO rowcast.aggregate (source, aggregate, id_text, present, refused_reason, refused_record,"
        " refused_since, refused_lsn) VALUES (%s, 'item', %s, true, %s, '{}', now(), 1)"
    )
    with project.control() as control:
        control.execute(insert, (project.name, "bad", "/status: <value> is wrong"))
        control.execute(insert, (project.name, "V%2F1%2C%20x", None))
    return lambda *arguments: rowcast(project, *(each.replace("SOURCE", project.name) for each in arguments))


def test_a_name_that_does_not_exist_is_an_error_that_says_which_do(project: TestProject, run: Run) -> None:
    """No command answers about a misspelt source, type or id as if there were one."""
    nobody = str(uuid.uuid4())
    for arguments, words in (
        (("refused", "list", "biling"), f"source 'biling': was never applied (applied: {project.name})"),
        (("refused", "retry", "biling", "--all"), f"source 'biling': was never applied (applied: {project.name})"),
        (("sources", "resume", "nope"), f"source 'nope': was never applied (applied: {project.name})"),
        (("refused", "show", "SOURCE", "items", "bad"), "declared: holdings, instance, item"),
        (("refused", "retry", "SOURCE", "items", "--all"), "declared: holdings, instance, item"),
        (("refused", "show", "SOURCE", "item", nobody), f"item '{nobody}': no row with this id was seen"),
        (("refused", "retry", "SOURCE", "item", nobody), f"`rowcast refused list {project.name}`"),
        (("refused", "retry", "SOURCE", "item", "V/1, x"), "as a record key it is written V%2F1%2C%20x"),
    ):
        answer = run(*arguments)
        assert (answer.returncode, answer.stdout) == (2, ""), arguments
        assert words in answer.stderr
        assert len(answer.stderr.splitlines()) == 1
    with project.control() as control:
        assert control.execute("SELECT count(*) FROM rowcast.command").fetchone() == (0,)


def test_what_is_not_refused_is_not_retried(run: Run) -> None:
    """`show` and `retry` say the same; a request that no worker takes is told."""
    for verb in ("show", "retry"):
        answer = run("refused", verb, "SOURCE", "item", "V%2F1%2C%20x")
        assert (answer.returncode, "is not refused" in answer.stdout) == (1, True)
    waiting = run("refused", "retry", "SOURCE", "item", "--all", "--timeout", "0")
    assert (waiting.returncode, waiting.stdout) == (1, "item bad: no worker has answered; the request stands\n")
    assert run("refused", "list", "SOURCE").stdout.endswith("item bad  /status: <value> is wrong\n1 refused\n")
