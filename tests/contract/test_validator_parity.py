"""Both validators against each other and against the official suite: they differ exactly where the page says."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from rowcast.contracts.profile import FORMATS, KEYWORDS

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs/reference/validation.md").read_text()
ROWS = re.findall(r"^\| `([a-z-]+)` \| (accepts|rejects|fails) \| (\d+) \| .+? \| `(.+)` \|$", PAGE, re.MULTILINE)
# What describes and constrains nothing; formats have files of their own.
WORDS = {"title", "description", "examples", "deprecated", "$comment", "format"}
FILES = {"$ref": "ref", "contentEncoding": "content"}
DATA = Path(os.environ.get("ROWCAST_TEST_DATA") or REPOSITORY.parent / "shared/data")
SUITE = DATA / "json-schema-test-suite"
WRITTEN = {True: "accepts", False: "rejects", None: "fails"}

Judge = Callable[[Any], bool | None]


def judges(schema: Any, retrieve: Callable[[str], Any], *, formats: bool) -> tuple[Judge, Judge]:
    """The fast validator and the reference; None: it fails."""
    fast = jsonschema_rs.Draft202012Validator(schema, validate_formats=formats, retriever=retrieve)
    registry: Registry[Any] = Registry(retrieve=lambda uri: Resource.from_contents(retrieve(uri)))
    checker = Draft202012Validator.FORMAT_CHECKER if formats else None
    slow = Draft202012Validator(schema, format_checker=checker, registry=registry)

    def reference(value: Any) -> bool | None:
        try:
            return slow.is_valid(value)
        except re.error:
            return None

    return fast.is_valid, reference


def nothing(uri: str) -> Any:
    raise LookupError(uri)


@pytest.mark.parametrize(("where", "verdict", "_count", "example"), ROWS)
def test_the_examples_of_the_page_divide_the_validators(where: str, verdict: str, _count: str, example: str) -> None:
    """The reference does what the page says, and the fast validator does not."""
    schema = {"pattern": "^\\p{L}$"} if where == "pattern" else {"format": where}
    fast, reference = judges(schema, nothing, formats=True)

    assert WRITTEN[reference(json.loads(example))] == verdict
    assert WRITTEN[fast(json.loads(example))] != verdict


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("value", [1, 1.5, True, None, [], {}], ids=repr)
def test_a_format_is_about_texts_alone(name: str, value: object) -> None:
    """Both accept whatever is no text."""
    assert [judge(value) for judge in judges({"format": name}, nothing, formats=True)] == [True, True]


def remote(uri: str) -> Any:
    """What the suite expects to be served under its address."""
    return json.loads((SUITE / "remotes" / uri.removeprefix("http://localhost:1234/")).read_text())


def files() -> Iterator[tuple[str, Path, bool]]:
    """What each file of the suite is about, and whether formats are asserted in it."""
    folder = SUITE / "tests/draft2020-12"
    for keyword in sorted(KEYWORDS - WORDS):
        yield keyword, folder / f"{FILES.get(keyword, keyword)}.json", False
    yield "format", folder / "format.json", False
    for name in sorted(FORMATS):
        yield name, folder / f"optional/format/{name}.json", True


def deviations() -> Iterator[tuple[str, str, str]]:
    """Which validator gives another verdict than the suite: about what, who, and what it does."""
    for about, path, formats in files():
        for case in json.loads(path.read_text()):
            fast, reference = judges(case["schema"], remote, formats=formats)
            for test in case["tests"]:
                for who, judge in (("fast", fast), ("reference", reference)):
                    verdict = judge(test["data"])
                    if verdict is not test["valid"]:
                        yield about, who, WRITTEN[verdict]


@pytest.mark.guarantee("Contracts hold")
@pytest.mark.skipif(
    not SUITE.is_dir(), reason="needs the official JSON-Schema-Test-Suite: ROWCAST_TEST_DATA names the folder it is in"
)
def test_the_official_suite_and_the_page_agree() -> None:
    """The fast validator follows the suite in all keywords and formats of the profile, the reference but for a list."""
    listed = {(where, "reference", verdict): int(count) for where, verdict, count, _example in ROWS}

    assert dict(Counter(deviations())) == listed


def test_the_code_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied word for word, with the contracts of this repository."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(REPOSITORY)

    exec(code, {})  # noqa: S102 - the page's own code
