"""`schemas lint`, `check --against` and `new-version`: what a change to a contract leads to, in a real repository."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from jsonschema import Draft202012Validator

from rowcast.cli.main import build_parser, main
from rowcast.contracts.compatibility.validator import FORMATS
from rowcast.contracts.remedies import REMEDIES

REPOSITORY = Path(__file__).resolve().parents[2]
ENTITY: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:rowcast:schema:shop.order:1.0:entity",
    "title": "Order",
    "description": "An order.",
    "x-ancestors": [],
    "type": "object",
    "required": ["id", "status"],
    "properties": {
        "id": {"type": "string", "description": "Id.", "examples": ["7"], "x-pii": "none"},
        "status": {"type": "string", "enum": ["placed", "paid"], "description": "State.", "x-pii": "none"},
    },
}
EVENT = {"after": {"id": "7", "status": "paid"}, "before": None, "ancestors": {}, "context": {}}
FIELD = {"type": "string", "description": "More.", "examples": ["a"], "x-pii": "none"}


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.invalid", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def commit(folder: Path) -> None:
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "change")


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))


def write_version(project: Path, version: str, entity: dict[str, Any]) -> Path:
    """A version with its examples and its derived schema."""
    folder = project / "schemas/shop/order"
    entity = {**entity, "$id": f"urn:rowcast:schema:shop.order:{version}:entity"}
    write(folder / f"v{version}.json", entity)
    write(folder / f"examples/v{version}/accepted/a.json", EVENT)
    write(folder / f"examples/v{version}/rejected/a.json", {**EVENT, "context": None})
    main(["--project", str(project), "schemas", "derive"])
    return folder / f"v{version}.json"


def changed(pointer: str, value: object, entity: dict[str, Any] = ENTITY) -> dict[str, Any]:
    """*entity* with another value at *pointer*; None takes it away."""
    copy = json.loads(json.dumps(entity))
    *path, last = pointer.split("/")
    place = copy
    for part in path:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return dict(copy)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose contract v1.0 is committed on `main`."""
    write_version(tmp_path, "1.0", ENTITY)
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    commit(tmp_path)
    return tmp_path


class Command:
    """Runs `rowcast schemas …` in a project."""

    def __init__(self, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.project, self.capsys = project, capsys

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Exit code and what was printed."""
        self.capsys.readouterr()
        code = main(["--project", str(self.project), "schemas", *arguments])
        printed = self.capsys.readouterr()
        return code, printed.out + printed.err

    def findings(self, *arguments: str) -> list[dict[str, Any]]:
        """What `--json` tells, with the exit code that goes with it."""
        code, text = self(*arguments, "--json")
        listed: list[dict[str, Any]] = json.loads(text)["findings"]
        assert code == (1 if listed else 0)
        return listed

    def rules(self, *arguments: str) -> list[str]:
        """The rules of what `check` finds."""
        return [each["rule"] for each in self.findings("check", *arguments)]


@pytest.fixture
def schemas(project: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, run in the project."""
    return Command(project, capsys)


def test_nothing_changed_is_in_order(schemas: Command) -> None:
    """The published contracts pass against what they were."""
    assert schemas("check", "--against", "main") == (0, "1 contract, 0 findings\n")


def test_better_words_are_no_change(project: Path, schemas: Command) -> None:
    """Descriptions and examples of a published version may be improved."""
    write_version(project, "1.0", changed("properties/id/description", "The number of the order."))

    assert schemas.rules("--against", "main") == []


EDITS = {
    "v1.1": changed("properties/note", FIELD),
    "v2.0": changed("properties/status/enum", ["placed", "paid", "refunded"]),
}


@pytest.mark.parametrize("version", EDITS)
def test_a_published_version_stays_and_the_next_number_is_named(version: str, project: Path, schemas: Command) -> None:
    """An edit is refused; the suggested version depends on what it breaks."""
    write_version(project, "1.0", EDITS[version])
    found = schemas.findings("check", "--against", "main")
    (finding,) = [each for each in found if each["rule"] == "VERSION_EDITED"]

    assert finding["file"] == str(project / "schemas/shop/order/v1.0.json")
    assert finding["message"].endswith(f"belongs into {version}: `schemas new-version shop/order`")


@pytest.mark.parametrize("version", EDITS)
def test_new_version_moves_an_edit_where_it_belongs(version: str, project: Path, schemas: Command) -> None:
    """The published text is restored, the edit gets its own file, and the check passes."""
    path = write_version(project, "1.0", EDITS[version])
    code, text = schemas("new-version", "shop/order")

    assert code == 0
    assert f"written   {path.with_name(version + '.json')}" in text
    assert json.loads(path.read_text()) == ENTITY
    assert json.loads(path.with_name(f"{version}.json").read_text())["properties"] == EDITS[version]["properties"]
    assert schemas.rules("--against", "main") == []


def test_new_version_copies_what_has_not_changed(project: Path, schemas: Command) -> None:
    """Without an edit the newest version is the start of the next, with its examples; not twice."""
    assert schemas("new-version", "shop/order")[0] == 0
    copy = project / "schemas/shop/order/v1.1.json"
    assert json.loads(copy.read_text())["$id"] == "urn:rowcast:schema:shop.order:1.1:entity"
    assert schemas.rules("--against", "main") == []
    code, text = schemas("new-version", "shop/order")

    assert code == 2
    assert "v1.1 is not published yet" in text


def test_versions_of_one_major_are_compared_with_each_other(project: Path, schemas: Command) -> None:
    """A value added to a closed list breaks old readers; the finding has file, line, pointer and an instance."""
    path = write_version(project, "1.1", EDITS["v2.0"])
    (finding,) = schemas.findings("check", "--against", "main")

    assert finding["rule"] == "ENUM_VALUE_ADDED"
    assert (finding["pointer"], finding["direction"], finding["against"]) == (
        "/properties/status/enum",
        "forward",
        "v1.0",
    )
    assert path.read_text().splitlines()[finding["line"] - 1].lstrip().startswith('"enum"')
    assert "refunded" in json.dumps(finding["witness"])
    assert "refunded" in finding["message"]


def test_all_pairs_of_a_major_are_compared(project: Path, schemas: Command) -> None:
    """A name that was removed comes back with another type: neighbours agree, the first and the last do not."""
    write_version(project, "1.1", changed("properties/note", FIELD))
    write_version(project, "1.2", ENTITY)
    assert schemas.rules() == []
    write_version(project, "1.3", changed("properties/note", {**FIELD, "type": "integer", "examples": [1]}))
    found = schemas.findings("check")

    assert {(each["rule"], each["against"]) for each in found} == {("TYPE_CHANGED", "v1.1")}
    assert {each["direction"] for each in found} == {"backward", "forward"}


def test_another_major_may_differ(project: Path, schemas: Command) -> None:
    """A breaking change is a new major version."""
    write_version(project, "2.0", EDITS["v2.0"])

    assert schemas.rules("--against", "main") == []


@pytest.mark.parametrize(("version", "rules"), [("1.1", []), ("1.2", ["VERSION_GAP"]), ("3.0", ["VERSION_GAP"])])
def test_versions_are_numbered_on(version: str, rules: list[str], project: Path, schemas: Command) -> None:
    """The next minor, or the next major version; nothing is left out."""
    write_version(project, version, ENTITY)

    assert schemas.rules("--against", "main") == rules


def test_a_published_version_does_not_go_away(project: Path, schemas: Command) -> None:
    """Its events can still be read."""
    write_version(project, "1.1", ENTITY)
    commit(project)
    folder = project / "schemas/shop/order"
    for path in (folder / "v1.0.json", folder / "v1.0.event.json"):
        path.unlink()
    shutil.rmtree(folder / "examples/v1.0")

    assert schemas.rules("--against", "main") == ["VERSION_DELETED"]


def test_a_folder_is_compared_as_a_ref_is(project: Path, schemas: Command, tmp_path_factory: Any) -> None:
    """What was published may lie beside the project, as the project or as its schemas folder."""
    before = tmp_path_factory.mktemp("before")
    shutil.copytree(project / "schemas", before / "schemas")
    write_version(project, "1.0", EDITS["v2.0"])

    assert schemas.rules("--against", str(before)) == ["VERSION_EDITED"]
    assert schemas.rules("--against", str(before / "schemas")) == ["VERSION_EDITED"]


def test_what_others_merged_meanwhile_is_not_blamed_on_this_branch(project: Path, schemas: Command) -> None:
    """The comparison is with the merge base, unless the tip is wanted."""
    git(project, "checkout", "--quiet", "-b", "branch")
    git(project, "checkout", "--quiet", "main")
    write_version(project, "1.1", ENTITY)
    commit(project)
    git(project, "checkout", "--quiet", "branch")

    assert schemas.rules("--against", "main") == []
    assert schemas.rules("--against", "main", "--no-merge-base") == ["VERSION_DELETED"]


def test_a_shallow_clone_is_told_the_command_that_helps(
    project: Path, tmp_path_factory: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command, run as it stands, mends it."""
    git(project, "checkout", "--quiet", "-b", "branch")
    write_version(project, "1.1", ENTITY)
    commit(project)
    clone = tmp_path_factory.mktemp("clone") / "project"
    git(project, "clone", "--quiet", "--depth=1", "--branch=branch", f"file://{project}", str(clone))
    schemas = Command(clone, capsys)

    for command in (
        "git fetch --depth=1 origin main:refs/remotes/origin/main",
        "git fetch --unshallow origin",
    ):
        code, text = schemas("check", "--against", "origin/main")
        assert (code, f"`{command}`" in text) == (2, True), text
        git(clone, *command.split()[1:])
    assert schemas("check", "--against", "origin/main")[0] == 0


def ignore(project: Path, **entry: object) -> None:
    lines = [f"{name} = {value if name == 'until' else json.dumps(value)}" for name, value in entry.items()]
    (project / "schemas/ignore.toml").write_text("\n".join(["[[ignore]]", *lines]))


def in_days(days: int) -> str:
    return (datetime.now(UTC).date() + timedelta(days=days)).isoformat()


IGNORED: dict[str, Any] = {"rule": "ENUM_VALUE_ADDED", "aggregate": "shop/order", "reason": "agreed with billing"}


@pytest.mark.parametrize(
    ("more", "rules"),
    [
        ({"until": in_days(1)}, []),
        ({"until": in_days(0)}, []),
        ({"until": in_days(1), "pointer": "/properties/status/enum"}, []),
        ({"until": in_days(-1)}, ["ENUM_VALUE_ADDED", "IGNORE_EXPIRED"]),
        ({"until": in_days(1), "pointer": "/properties/id"}, ["ENUM_VALUE_ADDED", "IGNORE_UNUSED"]),
        ({"until": in_days(1), "aggregate": "shop/item"}, ["ENUM_VALUE_ADDED", "IGNORE_UNUSED"]),
        ({"until": in_days(1), "reason": " "}, ["ENUM_VALUE_ADDED", "IGNORE_INVALID"]),
        ({}, ["ENUM_VALUE_ADDED", "IGNORE_INVALID"]),
        ({"until": in_days(1), "for": "x"}, ["ENUM_VALUE_ADDED", "IGNORE_INVALID"]),
    ],
)
def test_findings_are_tolerated_with_a_reason_until_a_day(
    more: dict[str, Any], rules: list[str], project: Path, schemas: Command
) -> None:
    """No entry outlives its day or its use."""
    write_version(project, "1.1", EDITS["v2.0"])
    ignore(project, **{**IGNORED, **more})

    assert schemas.rules("--against", "main") == rules


def test_findings_as_github_reads_them(project: Path, schemas: Command) -> None:
    """One command per finding, with file and line, on one line."""
    path = write_version(project, "1.1", EDITS["v2.0"])
    code, text = schemas("check", "--format", "github")
    line = text.splitlines()[0]

    assert code == 1
    assert line.startswith(f"::error file={path},line=")
    assert ",title=ENUM_VALUE_ADDED::a value was added" in line
    assert text.splitlines()[1:] == ["2 contracts, 1 finding"]


def test_findings_as_junit(project: Path, schemas: Command) -> None:
    """Well-formed, with as many failures as findings; one passed test when there is none."""
    silent = ElementTree.fromstring(schemas("check", "--format", "junit")[1])  # noqa: S314 - written by ourselves
    assert silent.attrib["failures"] == "0"
    write_version(project, "1.1", EDITS["v2.0"])
    suite = ElementTree.fromstring(schemas("check", "--format", "junit")[1])  # noqa: S314 - written by ourselves
    (case,) = suite.findall("testcase")

    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("1", "1")
    assert case.attrib["name"] == "ENUM_VALUE_ADDED /properties/status/enum"


def test_findings_as_text(project: Path, schemas: Command) -> None:
    """Place, what happened, an instance that shows it, and what to do."""
    path = write_version(project, "1.1", EDITS["v2.0"])
    lines = schemas("check")[1].splitlines()

    assert lines[0].startswith(f"{path}#/properties/status/enum: a value was added")
    assert lines[0].endswith("compared with v1.0 [ENUM_VALUE_ADDED]")
    assert lines[1].startswith("  for example {")
    assert lines[2].startswith("  fix: ")
    assert lines[3:] == ["2 contracts, 1 finding"]


LINT: dict[str, tuple[str, object, str]] = {
    "EXAMPLES_MISSING": ("properties/id/examples", None, "/properties/id"),
    "EXAMPLES_INVALID": ("properties/id/examples", [7], "/properties/id/examples/0"),
    "PATTERN_UNCLEAR": ("properties/id/pattern", "[0-9]", "/properties/id/pattern"),
    "DESCRIPTION_MISSING": ("properties/id/description", None, "/properties/id"),
    "PII_MISSING": ("properties/id/x-pii", None, "/properties/id"),
    "UNSUPPORTED_KEYWORD": ("properties/id/if", {}, "/properties/id/if"),
    "UNION_UNTAGGED": (
        "properties/id",
        {
            "description": "One of two.",
            "oneOf": [{"type": "object", "properties": {"a": FIELD}}, {"type": "object", "properties": {"b": FIELD}}],
        },
        "/properties/id/oneOf",
    ),
}


@pytest.mark.parametrize("rule", LINT)
def test_lint_finds_what_leaves_the_profile(rule: str, project: Path, schemas: Command) -> None:
    """Each finding has its rule, the line and column of its place, and a remedy."""
    pointer, value, place = LINT[rule]
    path = write_version(project, "1.0", changed(pointer, value))
    (finding,) = schemas.findings("lint", str(path))
    line = path.read_text().splitlines()[finding["line"] - 1]

    assert (finding["rule"], finding["pointer"], finding["fix"]) == (rule, place, REMEDIES[rule])
    assert line[finding["column"] - 1 :].startswith(f'"{place.split("/")[-1]}"' if not place.endswith("0") else "7")


def test_lint_of_a_sound_contract_is_silent(project: Path, schemas: Command) -> None:
    """A file, an aggregate's folder and the whole project may be named."""
    assert schemas("lint") == (0, "1 contract, 0 findings\n")
    assert schemas("lint", str(project / "schemas/shop")) == (0, "1 contract, 0 findings\n")
    assert schemas("lint", str(project / "schemas/nothing"))[0] == 2


TAGGED = {
    "description": "How it was paid.",
    "oneOf": [
        {
            "type": "object",
            "required": ["kind"],
            "properties": {"kind": {"const": kind, "description": "Kind.", "x-pii": "none"}},
        }
        for kind in ("card", "iban")
    ],
}


def test_lint_accepts_variants_with_a_constant(project: Path, schemas: Command) -> None:
    """A required constant of their own tells variants apart; null may stand beside them."""
    union = {**TAGGED, "oneOf": [*TAGGED["oneOf"], {"type": "null"}]}
    write_version(project, "1.0", changed("properties/id", union))

    assert schemas("lint") == (0, "1 contract, 0 findings\n")


def test_the_published_contracts_have_no_finding_of_lint() -> None:
    """Those of this repository are within the profile, with examples of every field."""
    assert main(["--project", str(REPOSITORY), "schemas", "lint"]) == 0


def test_formats_are_those_of_the_reference() -> None:
    """Both validators assert them."""
    assert set(Draft202012Validator.FORMAT_CHECKER.checkers) == FORMATS


def commands_of(path: str) -> list[list[str]]:
    """The `rowcast` commands in a file of examples."""
    text = (REPOSITORY / path).read_text()
    lines = [shlex.split(line.partition("rowcast ")[2]) for line in text.splitlines() if "rowcast schemas" in line]
    return [line for line in lines if line]


@pytest.mark.parametrize("path", ["rowcast/draft/frame/contracts.yml", "examples/ci/pre-commit-config.yaml"])
def test_the_files_for_users_hold_commands_that_exist(path: str) -> None:
    """Workflow and hook are YAML, and the command line takes what they run."""
    assert yaml.safe_load((REPOSITORY / path).read_text())
    parse: Callable[[list[str]], Any] = build_parser().parse_args

    assert [parse(command).run for command in commands_of(path)]
