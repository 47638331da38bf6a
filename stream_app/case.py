"""
``python -m stream_app.case``, as `rowcast sources test` runs it: committed cases, rows in and events out, offline.

A case is ``connectors/<source>.cases/<name>.json``: the columns of its tables, and steps, each one transaction with
the rows that it writes and deletes and the events that follow. See docs/reference/mapping.md.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rowcast.errors import ConfigurationError, RowcastError
from rowcast.settings import load_settings
from rowcast.sources.catalogue import Catalogue, Column, Table
from rowcast.sources.compilation import compile_definition
from rowcast.sources.declared_contract import contracts_of
from rowcast.sources.source_file import FOLDER, SourceFile, load_sources
from stream_app.trial import Outcome, Trial

# What a hand-written case may leave out of an event.
_OPTIONAL = ("version", "before", "ancestors")


def case_document(trial: Trial, catalogue: Catalogue, rows: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The case of *rows* being written in one transaction, with what becomes of them now."""
    definition = trial.mapping.definition
    tables = {table.name: catalogue.tables[table.name] for table in definition.tables}
    step: dict[str, Any] = {"write": dict(rows)}
    outcome = trial.commit((table, row) for table, each in rows.items() for row in each)
    return {
        "tables": {name: _table_document(table) for name, table in tables.items()},
        "steps": [{**step, **_outcome_document(outcome)}],
    }


def _table_document(table: Table) -> dict[str, Any]:
    columns = {
        column.name: {"type": column.type, "nullable": column.nullable, **({"enum": True} if column.enum else {})}
        for column in table.columns
    }
    return {"key": list(table.id_columns), "columns": columns}


def _outcome_document(outcome: Outcome) -> dict[str, Any]:
    refused = [
        {"aggregate": key.aggregate, "id": key.id_text, "reason": reason}
        for key, reason in sorted(outcome.refused.items())
    ]
    refused += [
        {"aggregate": each.aggregate, "id": each.id_text, "event": each.event, "reason": each.reason}
        for each in outcome.refused_statements
    ]
    return {"events": [outcome.shown(event) for event in outcome.events], **({"refused": refused} if refused else {})}


def _catalogue(tables: Mapping[str, Any]) -> Catalogue:
    return Catalogue(
        database="",
        version=180_000,
        wal_level="logical",
        slots_max=1,
        in_recovery=False,
        may_replicate=True,
        tables={name: _table(name, each) for name, each in tables.items()},
    )


def _table(name: str, entry: Mapping[str, Any]) -> Table:
    columns = tuple(
        Column(
            name=column,
            type=each["type"],
            nullable=each.get("nullable", False),
            enum=each.get("enum", False),
            generated=False,
        )
        for column, each in entry["columns"].items()
    )
    return Table(
        name=name,
        kind="r",
        persistence="p",
        replica_identity="f",  # rows of a case are whole
        columns=columns,
        key=tuple(entry["key"]),
        partition_of=None,
        inherits=None,
        leaf_identities=frozenset(),
    )


def run_case(source: SourceFile, contracts: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    """The lines in which the events of a case differ from what it says; none when it passes."""
    trial = Trial(compile_definition(source, contracts, _catalogue(document["tables"])))
    for number, step in enumerate(document["steps"], 1):
        outcome = trial.commit(_rows(step.get("write", {})), _rows(step.get("delete", {})), step.get("state", ()))
        found = _outcome_document(outcome)
        wanted = {"events": step["events"], **({"refused": step["refused"]} if step.get("refused") else {})}
        found["events"] = [_asked(each, wanted["events"][place:]) for place, each in enumerate(found["events"])]
        yield from (f"step {number}: {line}" for line in _difference(wanted, found))


def _rows(rows: Mapping[str, list[dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    return [(table, row) for table, each in rows.items() for row in each]


def _asked(event: dict[str, Any], wanted: list[dict[str, Any]]) -> dict[str, Any]:
    """*event* without what the first of *wanted* leaves out."""
    says = wanted[0] if wanted else {}
    return {name: value for name, value in event.items() if name not in _OPTIONAL or name in says}


def _difference(wanted: Any, found: Any) -> Iterator[str]:
    one, other = (json.dumps(each, indent=1, sort_keys=True, ensure_ascii=False) for each in (wanted, found))
    lines = difflib.unified_diff(one.splitlines(), other.splitlines(), "case", "found", lineterm="", n=2)
    return (line for line in lines if not line.startswith("@@"))


def main(arguments: list[str]) -> int:
    """Run the cases that *arguments* ask for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="rowcast sources test")
    parser.add_argument("--project", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("sources", nargs="*")
    options = parser.parse_args(arguments)
    try:
        results = [each for source in load_sources(options.project, options.sources) for each in _run(source, options)]
        if not results:
            where = str(options.project / FOLDER)
            raise ConfigurationError("there is no case", where=where, fix="write <source>.cases/<name>.json")
    except RowcastError as error:
        print(f"rowcast: {error}", file=sys.stderr)
        return 2
    failed = [each for each in results if each["differences"]]
    if options.json:
        print(json.dumps({"cases": results}, indent=2, ensure_ascii=False))
    else:
        for each in results:
            print(f"{'failed' if each['differences'] else 'passed'}  {each['source']}  {each['case']}")
            print(*(f"  {line}\n" for line in each["differences"]), sep="", end="")
        print(f"{len(results)} cases, {len(failed)} failed")
    return 1 if failed else 0


def _run(source: SourceFile, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    paths = sorted(source.path.with_suffix(".cases").glob("*.json"))
    contracts = contracts_of(source, load_settings(options.project)) if paths else {}
    for path in paths:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            differences = list(run_case(source, contracts, document))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"is no case: {type(error).__name__}: {error}"
            raise ConfigurationError(message, where=str(path), fix="see docs/reference/mapping.md") from error
        yield {"source": source.source, "case": path.stem, "differences": differences}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
