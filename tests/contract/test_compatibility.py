"""Compatibility of two schemas: hand-made pairs, random changes, and what the command prints."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from jsonschema import Draft202012Validator
from schema_generator import Documents, Schemas, mutated

from rowcast.cli.main import main
from rowcast.contracts.compatibility import verdict
from rowcast.contracts.compatibility.pattern import ECMA, PYTHON, automaton
from rowcast.contracts.compatibility.rules import RULES
from rowcast.contracts.compatibility.screening import Screening
from rowcast.contracts.compatibility.text_set import TextSet
from rowcast.contracts.compatibility.verdict import compare

REPOSITORY = Path(__file__).resolve().parents[2]
PAIRS = {
    f"{path.stem}: {name}": pair
    for path in sorted((REPOSITORY / "tests/contract/pairs").glob("*.yaml"))
    for name, pair in yaml.safe_load(path.read_text()).items()
}
QUICK, SLOW = 300, 10_000
SHARES = 10
SHARES_OF_ALL = 1
DOCUMENTS = 40


def closed(schema: Any) -> Any:
    """What a writer emits: in an object with `properties`, nothing else."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {}
    for keyword, value in schema.items():
        named = keyword in {"properties", "$defs", "patternProperties", "dependentSchemas"}
        plain = keyword in {"const", "enum", "required", "examples", "dependentRequired"}
        copy[keyword] = (
            value if plain else {name: closed(each) for name, each in value.items()} if named else closed(value)
        )
    if "properties" in copy and "additionalProperties" not in copy:
        copy["additionalProperties"] = False
    return copy


def validators(schema: Any) -> Iterator[Any]:
    """The two validators, formats asserted."""
    yield jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    yield Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def confirm_witnesses(old: Any, new: Any) -> None:
    """Each broken direction has a finding whose instance the writer emits and the reader rejects."""
    comparison = compare(old, new)
    sides = {"backward": (old, new), "forward": (new, old)}
    for direction, (writer, reader) in sides.items():
        shown = [each for each in comparison.findings if each.direction == direction and each.rule != "UNDECIDED"]
        assert bool(shown) == (getattr(comparison, direction) is False)
        for finding in shown:
            assert [each.is_valid(finding.witness) for each in validators(closed(writer))] == [True, True]
            assert [each.is_valid(finding.witness) for each in validators(reader)] == [False, False]
            assert finding.rule in RULES


def test_there_are_at_least_two_hundred_pairs() -> None:
    """The table is large enough to mean something."""
    assert len(PAIRS) >= 200


@pytest.mark.guarantee("Contracts hold")
@pytest.mark.parametrize("name", PAIRS)
def test_the_verdicts_on_a_hand_made_pair(name: str) -> None:
    """Both verdicts are as written, and every break is shown by an instance that both validators confirm."""
    old, new, backward, forward = PAIRS[name]
    comparison = compare(old, new)

    assert (comparison.backward, comparison.forward) == (backward, forward)
    confirm_witnesses(old, new)


@pytest.mark.parametrize("name", PAIRS)
def test_the_verdicts_turn_round_with_the_pair(name: str) -> None:
    """What is backward for one order is forward for the other."""
    old, new, backward, forward = PAIRS[name]
    comparison = compare(new, old)

    assert (comparison.backward, comparison.forward) == (forward, backward)


def counterexample(writer: Any, reader: Any, seed: int) -> Any:
    """A document that the writer emits and the reader rejects, in a tuple; None when none is found."""
    emits = jsonschema_rs.Draft202012Validator(closed(writer), validate_formats=True)
    reads = jsonschema_rs.Draft202012Validator(reader, validate_formats=True)
    for source in (writer, reader):
        documents = Documents(source, seed)
        for _document in range(DOCUMENTS):
            value = documents.make()
            if emits.is_valid(value) and not reads.is_valid(value):
                return (value,)
    return None


def judge_mutations(seeds: range) -> Counter[bool | None]:
    """How often each verdict was given; a wrong one fails."""
    verdicts: Counter[bool | None] = Counter()
    for seed in seeds:
        schemas = Schemas(seed)
        old = schemas.document()
        new = mutated(old, schemas)
        comparison = compare(old, new)
        for writer, reader, given in ((old, new, comparison.backward), (new, old, comparison.forward)):
            verdicts[given] += 1
            found = counterexample(writer, reader, seed)
            assert found is None or given is not True, (seed, found, writer, reader)
        confirm_witnesses(old, new)
    return verdicts


def assert_decided(verdicts: Counter[bool | None], record: Any) -> None:
    """Below five in a hundred are undecided, and neither answer is rare."""
    share = verdicts[None] / verdicts.total()
    record("undecided share", share)
    print(f"{verdicts.total()} verdicts: {dict(verdicts)}, undecided {share:.2%}")

    assert share < 0.05
    assert min(verdicts[True], verdicts[False]) > verdicts.total() / 10


@pytest.mark.guarantee("Contracts hold")
def test_random_changes_are_never_wrongly_called_compatible(record_property: Any) -> None:
    """A generator of documents that knows nothing of the proof finds no counterexample to it."""
    assert_decided(judge_mutations(range(QUICK)), record_property)


@pytest.mark.slow
@pytest.mark.guarantee("Contracts hold")
@pytest.mark.parametrize(
    "share", [pytest.param(each, marks=pytest.mark.matrix) if each >= SHARES_OF_ALL else each for each in range(SHARES)]
)
def test_ten_thousand_random_changes(share: int, record_property: Any) -> None:
    """The same for ten thousand changes, in parts; `--all` tries some of them."""
    size = SLOW // SHARES
    first = QUICK + share * size

    assert_decided(judge_mutations(range(first, first + size)), record_property)


def at_a_glance(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether the short cut of the check takes both for compatible."""
    screening = Screening()
    return screening.outline(old).compatible(screening.outline(new))


def test_what_is_compatible_at_a_glance_is_compatible() -> None:
    """The short cut of the check never says more than the comparison itself."""
    glances = 0
    for seed in range(600):
        schemas = Schemas(seed)
        old = schemas.document()
        new = mutated(old, schemas)
        if at_a_glance(old, new):
            glances += 1
            comparison = compare(old, new)
            assert (comparison.backward, comparison.forward) == (True, True)

    assert glances > 20


@pytest.mark.parametrize("values", [(1, 1.0), (True, 1), (2**70, 2**70 + 1), ("\ud800", "\ud801")])
def test_values_that_python_holds_for_alike_are_not_taken_for_the_same(values: tuple[Any, Any]) -> None:
    """Texts of schemas differ where their values do, also for what fits into no 64 bits or is no text."""
    first, second = ({"properties": {"a": {"const": value}}} for value in values)

    assert at_a_glance(first, first)
    assert not at_a_glance(first, second)


@pytest.mark.parametrize("keyword", ["additionalProperties", "patternProperties", "propertyNames", "maxProperties"])
def test_nothing_is_taken_at_a_glance_when_properties_hang_together(keyword: str) -> None:
    """A keyword that concerns several properties needs a proof."""
    values = {"additionalProperties": {"type": "integer"}, "patternProperties": {"b": {"type": "integer"}}}
    more = {keyword: {**values, "propertyNames": {"enum": ["a"]}, "maxProperties": 1}[keyword]}

    assert at_a_glance(KEPT, REMOVED)
    assert not at_a_glance({**KEPT, **more}, {**REMOVED, **more})


@pytest.mark.parametrize("levels", [30, 150, 700])
def test_deep_schemas_are_compared_or_left_undecided(levels: int) -> None:
    """However deep two schemas are nested, there is an answer, and no wrong one."""
    old: dict[str, Any] = {"type": "integer"}
    new: dict[str, Any] = {"type": "string"}
    for _level in range(levels):
        old, new = ({"type": "object", "properties": {"a": inner}, "required": ["a"]} for inner in (old, new))
    comparison = compare(old, new)

    assert (comparison.backward, comparison.forward) in [(False, False), (None, None)]
    assert comparison.findings


def test_a_doubt_of_the_second_opinion_undoes_a_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the library denies what was proven, nobody is told that it holds."""
    monkeypatch.setattr(verdict, "denies", lambda _writer, _reader: True)
    comparison = compare({"type": "string"}, {"type": "string"})

    assert (comparison.backward, comparison.forward) == (None, None)
    assert {each.rule for each in comparison.findings} == {"ENGINE_DISAGREEMENT"}


def test_a_counterexample_undoes_a_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the proof wrong, an instance found at random would say so."""
    monkeypatch.setattr(verdict.Inclusion, "gaps", lambda *_arguments: [])
    comparison = compare({"type": ["string", "integer"]}, {"type": "string"})

    assert (comparison.backward, comparison.forward) == (False, True)
    assert comparison.findings[0].rule == "ENGINE_DISAGREEMENT"


@pytest.mark.parametrize("flavour", [ECMA, PYTHON])
@pytest.mark.parametrize(
    "pattern",
    [
        "^[a-z]+$",
        "^a|b$",
        "a",
        "^$",
        "^(ab)*$",
        "^(?:a|b){2,4}$",
        "^[^a]$",
        r"^\d{3}$",
        ".",
        r"^\W+$",
        r"(a$)\n?",
        "a$b",
    ],
)
def test_patterns_are_read_as_the_validators_read_them(pattern: str, flavour: str) -> None:
    """Every short text over a few telling characters is judged as by the regular expressions of the validator."""
    machine = automaton(pattern, flavour)
    assert machine is not None
    judge = jsonschema_rs.Draft202012Validator({"pattern": pattern}).is_valid if flavour == ECMA else None
    for length in range(4):
        for letters in itertools.product("ab0é_\n", repeat=length):
            text = "".join(letters)
            states = machine.closure({(machine.first, "")}, start=True)
            for letter in text:
                states = machine.step(states, ord(letter))
            expected = judge(text) if judge else re.search(pattern, text) is not None
            assert machine.accepts(states) is expected, text


def test_texts_between_two_patterns() -> None:
    """Samples match the one and not the other; when the set is empty there are none."""
    between = TextSet(("^[a-z0-9]{2,3}$",), 0, None, "^[a-z]+$")

    assert not between.is_empty()
    assert all(re.search("^[a-z0-9]{2,3}$", text) and re.search("[0-9]", text) for text in between.samples())
    assert TextSet(("^[a-z]+$",), 0, None, "^[a-z0-9]+$").is_empty()
    assert list(between.samples())


REMOVED = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
KEPT: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    ("old", "new", "rules"),
    [
        (REMOVED, KEPT, ["FIELD_REMOVED"]),
        (REMOVED, {**KEPT, "x-reserved": ["b"]}, []),
        ({**KEPT, "x-reserved": ["b"]}, {**REMOVED, "x-reserved": ["b"]}, ["FIELD_REUSED"]),
    ],
)
def test_policy_on_names_changes_no_verdict(old: Any, new: Any, rules: list[str]) -> None:
    """A removed field is reported until its name is reserved; a reserved name is not used again."""
    comparison = compare(old, new)

    assert [each.rule for each in comparison.findings] == rules
    assert (comparison.backward, comparison.forward) == (True, True)


def test_the_compatibility_page_lists_every_rule() -> None:
    """Rules, what they mean and how to mend them are on the page, in order."""
    page = (REPOSITORY / "docs/reference/compatibility.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*) \| (.*) \|$", page, re.MULTILINE)

    assert rows == [(name, rule.purpose, rule.fix) for name, rule in sorted(RULES.items())]


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_diff_prints_verdicts_and_findings_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exactly the documented fields; exit code 1 when a direction breaks."""
    old = write(tmp_path / "old.json", '{"type": "string"}')
    new = write(tmp_path / "new.json", '{"type": ["string", "null"]}')

    assert main(["schemas", "diff", old, new, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "backward": True,
        "forward": False,
        "findings": [
            {
                "rule": "NULLABLE_ADDED",
                "direction": "forward",
                "pointer": "/type",
                "old": "string",
                "new": ["string", "null"],
                "witness": None,
                "message": "/type: null was added; readers of the old version reject documents of the new one",
                "fix": "send the old kind of value only, or publish the change as a new major version",
            }
        ],
    }
    assert main(["schemas", "diff", old, old, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"backward": True, "forward": True, "findings": []}


def test_diff_explains_in_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The reader sees the field, the rule, an instance, and what to do instead."""
    old = write(tmp_path / "old.json", json.dumps(KEPT))
    new = write(tmp_path / "new.json", json.dumps({**REMOVED, "required": ["b"]}))

    assert main(["schemas", "diff", old, new, "--explain"]) == 1
    told = '/required: a field was added to `required`: "b"; readers of the new version reject documents of the old one'
    lines = [
        f"{told} [FIELD_REQUIRED_ADDED]",
        "  for example {}",
        "  old: null",
        '  new: ["b"]',
        "  fix: make it optional, or let it be null",
        "backward: no (new readers, old documents)",
        "forward:  yes (old readers, new documents)",
    ]

    assert capsys.readouterr().out.splitlines() == lines


MALFORMED = {
    '{"type": "object",\n "x":}': ":2:6: not JSON: Expecting value",
    '{"type": "object",\n "x": 1, "x": 2}': ":2:10: a name stands twice in one object",
    '{"a": [1,\n  NaN]}': ":2:3: NaN is no number of JSON",
    '{"a": "b",\n "c": 1e999}': ":2:7: 1e999 is too large for a number",
    "[1]": ":1:1: not a JSON Schema: neither an object nor true or false",
    '{"properties":\n {"a": {"minLength": "x"}}}': ":2:9: not a JSON Schema at /properties/a/minLength",
}


@pytest.mark.parametrize("text", MALFORMED)
def test_diff_names_the_place_of_a_fault(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no schema is told with its line and column; exit code 2."""
    good = write(tmp_path / "good.json", "{}")
    bad = write(tmp_path / "bad.json", text)

    assert main(["schemas", "diff", good, bad]) == 2
    assert f"{bad}{MALFORMED[text]}" in capsys.readouterr().err
    assert main(["schemas", "diff", bad, good, "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {"backward": None, "forward": None, "findings": []}
