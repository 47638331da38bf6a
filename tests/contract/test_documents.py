"""README, docs and help are true: links lead somewhere, examples work, tables are complete."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from guarantees import named_guarantees
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from prometheus_client.metrics import MetricWrapperBase

from rowcast import acl_settings, connect_address, database_settings, settings
from rowcast.brokers import SECURITY
from rowcast.cli.main import build_parser
from rowcast.contracts import profile
from rowcast.contracts.checking import check_folder
from rowcast.contracts.contract import load_contract
from rowcast.sources.source_file import load_source
from stream_app.metrics import Metrics

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
CONTRACTS = (REPOSITORY / "docs/reference/contracts.md").read_text()
QUICKSTART = (REPOSITORY / "docs/quickstart.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    """Relative links point at files of the repository."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())

    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_every_failpoint_is_documented_and_hit_by_a_test() -> None:
    """The table of failpoints is complete, and names no place that is gone."""
    code = "".join(
        path.read_text() for folder in ("rowcast", "stream_app") for path in (REPOSITORY / folder).rglob("*.py")
    )
    tests = "".join(path.read_text() for path in (REPOSITORY / "tests/integration").glob("*.py"))
    page = (REPOSITORY / "docs/reference/failpoints.md").read_text()

    documented = re.findall(r"^\| `([a-z_]+\.[a-z_.]+)` \|", page, re.M)

    assert sorted(documented) == sorted(re.findall(r'failpoint\("([a-z_.]+)"\)', code))
    assert [name for name in documented if name.partition(".")[2] not in tests] == []


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of the command, of every noun and of every verb."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


@pytest.mark.parametrize("parser", list(parsers(build_parser())), ids=lambda parser: parser.prog)
def test_the_help_of_command_nouns_and_verbs_ends_with_examples_that_work(parser: argparse.ArgumentParser) -> None:
    """`--help` shows how command, noun or verb is used, in lines that the command takes as they are."""
    head, *examples = (parser.epilog or "").splitlines()

    assert head in {"example:", "examples:"}
    assert examples
    for example in examples:
        assert example.startswith(f"  {parser.prog}")
        assert callable(build_parser().parse_args(shlex.split(example, comments=True)[1:]).run)


def test_every_guarantee_of_the_readme_has_tests_behind_it() -> None:
    """No guarantee is a claim alone, and no test counts for one that the README does not name."""
    marked = set()
    for path in (REPOSITORY / "tests").rglob("test_*.py"):
        marked |= set(re.findall(r"mark\.guarantee\(\"(.+?)\"\)", path.read_text()))

    assert marked == set(named_guarantees())


def test_importing_what_consumers_install_loads_neither_faust_nor_librdkafka() -> None:
    """The base installation stays light."""
    code = "import sys, rowcast.consumer; sys.exit(bool({'faust', 'confluent_kafka', 'aiokafka'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def closure() -> set[str]:
    """The packages that the base installation pulls, by what those that are installed here say they need."""
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = [Requirement(each) for each in declared]
    found: set[tuple[str, frozenset[str]]] = set()
    while wanted:
        each = wanted.pop()
        name = canonicalize_name(each.name)
        if (name, frozenset(each.extras)) in found:
            continue
        found.add((name, frozenset(each.extras)))
        for needed in map(Requirement, metadata.requires(name) or ()):
            extras = each.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                wanted.append(needed)
    return {name for name, _ in found}


def test_the_base_installation_pulls_fewer_than_ten_packages() -> None:
    """What every consumer has to install and keep up to date."""
    assert {"kafka-python", "psycopg", "psycopg-binary"} <= closure()
    assert len(closure()) < 10


@pytest.mark.parametrize(
    ("missing", "command", "extra"),
    [("jsonschema", "schemas diff old.json new.json", "schemas"), ("requests", "sources plan", "sources")],
)
def test_a_command_names_the_extra_that_it_lacks(missing: str, command: str, extra: str, tmp_path: Path) -> None:
    """And the consumer's side works without it."""
    (tmp_path / "old.json").write_text('{"type": "integer"}')
    (tmp_path / "new.json").write_text('{"type": "string"}')
    code = (
        f"import sys; sys.modules['{missing}'] = None; import rowcast.consumer, rowcast.event_log;"
        " from rowcast.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command_line = [sys.executable, "-c", code, *command.split()]
    done = subprocess.run(command_line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"pip install 'rowcast[{extra}]'" in done.stderr


def block(language: str, number: int = 0) -> str:
    """A fenced block of the quickstart."""
    return re.findall(rf"```{language}\n(.*?)```", QUICKSTART, re.DOTALL)[number]


def test_the_quickstart_s_source_and_contract_are_accepted(tmp_path: Path) -> None:
    """Copied word for word, the files pass `rowcast schemas check` and the source file's parser."""
    contract = tmp_path / "schemas/shop/customer/v1.0.json"
    accepted = contract.parent / "examples/v1.0/accepted/created.json"
    rejected = contract.parent / "examples/v1.0/rejected/no-name.json"
    for number, path in enumerate([contract, accepted, rejected]):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block("json", number))
    command = [sys.executable, "-m", "rowcast.cli.main", "--project", str(tmp_path), "schemas", "derive"]
    subprocess.run(command, check=True, capture_output=True)
    source = tmp_path / "connectors/shop.yaml"
    source.parent.mkdir()
    source.write_text(block("yaml"))

    assert check_folder(tmp_path / "schemas") == []
    assert [each.name for each in load_source(source).aggregates] == ["customer"]


def test_the_quickstart_s_child_table_fits_its_parent(tmp_path: Path) -> None:
    """Added word for word, source file and contract declare a hierarchy."""
    path = tmp_path / "schemas/shop/address/v1.0.json"
    path.parent.mkdir(parents=True)
    path.write_text(block("json", 3))
    source = tmp_path / "connectors/shop.yaml"
    source.parent.mkdir()
    source.write_text(block("yaml") + block("yaml", 1))
    parents = {each.name: each.parent and each.parent.aggregate for each in load_source(source).aggregates}

    assert {each.rule for each in check_folder(tmp_path / "schemas")} == {"DERIVED_MISSING", "EXAMPLE_MISSING"}
    assert parents == {"customer": None, "address": "customer"}
    assert load_contract(path).ancestors == ("customer",)


def code_words(line: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", line)


def table_row(first: str) -> list[str]:
    """The words in backticks of a row of the contracts page, its first cell left out."""
    (line,) = [line for line in CONTRACTS.splitlines() if line.startswith(f"| {first} |")]
    return code_words(line.removeprefix(f"| {first} |"))


def test_every_source_file_of_the_pages_is_accepted(tmp_path: Path) -> None:
    """Each YAML block that begins as a source file is one."""
    blocks = [each for page in PAGES for each in re.findall(r"```yaml\n(source: .*?)```", page.read_text(), re.S)]
    assert len(blocks) > 8
    for block in blocks:
        path = tmp_path / f"{block.split()[1]}.yaml"
        path.write_text(block)
        load_source(path)


def test_the_contracts_page_lists_every_rule_of_the_check() -> None:
    """Each rule that a finding can name is explained, and no other; they stand in order."""
    package = REPOSITORY / "rowcast/contracts"
    written = {
        rule for path in package.glob("*.py") for rule in re.findall(r'"([A-Z]+(?:_[A-Z]+)*)"', path.read_text())
    }

    assert re.findall(r"^\| `([A-Z_]+)` \|", CONTRACTS, re.MULTILINE) == sorted(written)


def test_the_contracts_page_lists_the_profile() -> None:
    """Keywords at the root and below, types and formats are those that the check allows."""
    (types,) = [line for line in CONTRACTS.splitlines() if line.startswith("- Types are ")]
    formats = CONTRACTS.partition("- A `format` is one that is checked:")[2].partition(".\n")[0]

    assert set(table_row("at the root")) == profile.ROOT_KEYWORDS
    assert set(table_row("below")) == profile.KEYWORDS
    assert set(code_words(types)) == profile.TYPES
    assert set(code_words(formats)) == profile.FORMATS


def test_the_contract_of_the_contracts_page_has_no_fault(tmp_path: Path) -> None:
    """The example is within the profile."""
    (text,) = re.findall(r"```json\n(.*?)```", CONTRACTS, re.DOTALL)
    path = tmp_path / "inventory/holdings/v1.0.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)

    assert {each.rule for each in check_folder(tmp_path)} == {"DERIVED_MISSING", "EXAMPLE_MISSING"}


def test_the_worker_page_lists_every_metric() -> None:
    """Names as they are scraped, types and labels are those of the registry, in its order."""
    page = (REPOSITORY / "docs/reference/worker.md").read_text()
    metrics = Metrics()
    written = []
    for collector in metrics.registry._collector_to_names:
        (metric,) = collector.describe()
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        assert isinstance(collector, MetricWrapperBase)
        labels = collector._labelnames
        further = [f"`{each}`" for each in labels if each != "source"] if "source" in labels else ["no `source`"]
        written.append((name, metric.type, ", ".join(further)))

    rows = re.findall(r"^\| `(rowcast_\w+)` \| (\w+) \| (.*?) ?\|", page, re.MULTILINE)
    assert rows == written


def test_the_configuration_page_lists_every_key_and_variable() -> None:
    """What `rowcast.toml` and the environment may say is explained, and nothing else is."""
    page = (REPOSITORY / "docs/reference/configuration.md").read_text()
    keys, variables = page.partition("## `rowcast.toml`")[2].partition("## Environment")[::2]
    cells = [re.findall(r"^\| (`.*?) \|", part.partition("\n## ")[0], re.MULTILINE) for part in (keys, variables)]
    documented = [{word for cell in part for word in code_words(cell)} for part in cells]

    sections = {"acl": acl_settings.NAMES, "connect": connect_address.NAMES, "kafka": SECURITY}
    accepted = settings._TOP - {"databases", *sections} | {f"databases.<name>.{key}" for key in database_settings.KEYS}
    accepted |= {f"{section}.{key}" for section, keys in sections.items() for key in keys}
    further = {f"ROWCAST_DATABASE_<NAME>__{key.upper()}" for key in database_settings.KEYS[1:]}
    assert documented == [accepted, {*settings.known_variables(), "ROWCAST_DATABASE_<NAME>", *further}]


def test_the_toml_of_the_configuration_page_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied word for word, it is a project's configuration."""
    monkeypatch.setenv("CONTROL_PASSWORD", "secret")
    secrets = tmp_path / "inventory.properties"
    secrets.write_text("password=other\n")
    (text,) = re.findall(r"```toml\n(.*?)```", (REPOSITORY / "docs/reference/configuration.md").read_text(), re.DOTALL)
    (tmp_path / "rowcast.toml").write_text(text.replace("/run/secrets/inventory.properties", str(secrets)))
    read = settings.load_settings(tmp_path, {})

    assert (read.need_brokers(), read.need_connect_url()) == ("kafka-1:9092,kafka-2:9092", "http://connect:8083")
    control, inventory = read.control(), read.database("inventory")
    assert (control.parameters()["dbname"], control.parameters()["password"]) == ("rowcast", "secret")
    assert inventory.parameters()["password"] == "other"
    assert inventory.connect_password == "${file:/etc/connect/secrets.properties:inventory}"


def test_the_quickstart_is_as_short_as_it_says() -> None:
    """Source file, contract and consumer have under 60 lines together."""
    assert sum(len(text.splitlines()) for text in (block("yaml"), block("json"), block("python"))) < 60


STOPS, PROBLEMS = (REPOSITORY / "docs/reference/stops.md").read_text().split("\n## ", 1)


def listed_codes(page: str) -> list[str]:
    """The codes in the first cells of a page's table, in their order."""
    cells = re.findall(r"^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \|", page, re.MULTILINE)
    return [code for cell in cells for code in code_words(cell)]


def written_texts(folder: str) -> Iterator[ast.AST]:
    """Every node of every module of a folder."""
    for path in (REPOSITORY / folder).rglob("*.py"):
        yield from ast.walk(ast.parse(path.read_text()))


def codes_in(node: ast.AST) -> set[str]:
    """The texts inside *node* that look like a code."""
    texts = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
    return {text for text in texts if isinstance(text, str) and re.fullmatch(r"[A-Z]+(_[A-Z]+)*", text)}


def test_the_page_of_stops_lists_every_code_that_stops_a_source() -> None:
    """Each code that the worker stops with is explained, and no other."""
    raised = {
        code
        for node in written_texts("stream_app")
        if isinstance(node, ast.Constant)
        for code in codes_in(node)
        if "_" in code and not code.startswith("ROWCAST_")
    }

    assert set(listed_codes(STOPS)) == raised


def test_the_page_of_stops_lists_every_problem_of_the_status() -> None:
    """Each code that `sources status` tells is explained, and no other; they stand in order."""
    told = {
        code
        for node in written_texts("rowcast/sources")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem"
        for code in codes_in(node.args[0])
    }

    assert listed_codes(PROBLEMS) == sorted(told)
