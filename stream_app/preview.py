"""
``python -m stream_app.preview``, as `rowcast sources preview` runs it: the events that rows of the database give.

Reads the rows, their ancestors' and the reference tables; touches nothing, and needs neither Kafka nor a worker.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from rowcast.errors import ConfigurationError, MappingError, RowcastError
from rowcast.hash_key import HashKey
from rowcast.identity import Identity
from rowcast.settings import load_settings
from rowcast.sources.catalogue import Catalogue, connect_source, read_catalogue
from rowcast.sources.declared_contract import contracts_of
from rowcast.sources.definition import AggregateDefinition, SourceDefinition
from rowcast.sources.plan import admit, with_hash_key
from rowcast.sources.row_reading import Rows, read_rows
from rowcast.sources.source_file import load_sources
from rowcast.sources.tenant import TENANT_COLUMN, TenantPattern, is_pattern
from stream_app.case import case_document
from stream_app.core.embedding import EmbeddedMapping
from stream_app.core.mapping import AggregateMapping
from stream_app.core.state import Key
from stream_app.trial import Outcome, Trial

_REFERENCE_ROWS_MAX = 100_000
_EMBEDDED_ROWS_MAX = 10_000


class Reading:
    """The rows that a preview is made of, by table."""

    def __init__(
        self,
        definition: SourceDefinition,
        connection: psycopg.Connection[Any],
        key: HashKey | None,
        catalogue: Catalogue,
    ) -> None:
        self.trial = Trial(definition, key)
        self._present = {name: [each.name for each in table.present] for name, table in catalogue.tables.items()}
        self._definition = definition
        self._connection = connection
        self._tables = {table.name: table for table in definition.tables}
        self.rows: dict[str, Rows] = {table.name: [] for table in definition.tables}

    def read(self, aggregate: AggregateDefinition, id_text: str | None, limit: int) -> set[Key]:
        """Read rows of an aggregate type with all above them; the keys of the rows themselves."""
        wanted, tenant = None, None
        if id_text is not None:
            try:
                identity = Identity.from_id_text("", "", id_text)
            except ValueError as error:
                raise ConfigurationError(str(error), where="--id", fix="write it as the record key has it") from error
            parts, tenant = identity.parts, identity.tenant
            if is_pattern(aggregate.table) is not (tenant is not None):
                told, fix = ("has no", "<tenant>/<id>") if tenant is None else ("has a", "the id alone")
                raise ConfigurationError(f"{told} tenant", where="--id", fix=fix)
            if len(parts) != len(aggregate.id):
                raise ConfigurationError(f"has {len(parts)} parts", where="--id", fix=f"{len(aggregate.id)} of them")
            wanted = (aggregate.id, parts)
        found = self._rows(aggregate.table, tenant, wanted, limit)
        for row in found:
            self._add(aggregate, row)
        return {self.trial.key_of_row(aggregate.table, row) for row in found}

    def _rows(
        self, table: str, tenant: str | None, wanted: tuple[Sequence[str], Sequence[str]] | None, limit: int
    ) -> Rows:
        """At most *limit* rows of a declared table; of the table of one *tenant*, or of all tenants, if it has any."""
        if not is_pattern(table):
            return read_rows(self._connection, self._tables[table], wanted, limit)
        pattern, rows = TenantPattern.read(table), list[dict[str, Any]]()
        for each in self._present.get(table, ()):
            whose = pattern.tenant_of(each)
            if len(rows) < limit and tenant in {None, whose}:
                found = read_rows(self._connection, replace(self._tables[table], name=each), wanted, limit - len(rows))
                rows += [{TENANT_COLUMN: whose, **row} for row in found]
        return rows

    def _add(self, aggregate: AggregateDefinition, row: dict[str, Any]) -> None:
        if row in self.rows[aggregate.table]:
            return
        self.rows[aggregate.table].append(row)
        mapping = self.trial.mapping.by_type[aggregate.name]
        row_key = mapping.row_key(row)
        self._add_embedded((*mapping.embedded, *((mapping.link,) if mapping.link else ())), row_key)
        try:
            parent_ids = self._parent_ids(mapping, self.trial.kept(aggregate.table, row), row_key)
        except MappingError:
            return  # the preview says so by itself
        for each in parent_ids:
            self.read(self.trial.mapping.by_type[mapping.ancestor_types[0]].definition, each, 2)

    def _parent_ids(self, mapping: AggregateMapping, row: Mapping[str, Any], row_key: str) -> list[str]:
        link = mapping.link
        if link is None:
            found = [mapping.parent_id_text(row)]
        else:
            found = [link.parent(each) for each in self.rows[link.table] if link.owner(each) == row_key]
        return [each for each in found if each is not None]

    def _add_embedded(self, embedded: Iterable[EmbeddedMapping], row_key: str) -> None:
        identity = Identity.from_id_text("", "", row_key)
        for each in embedded:
            wanted = each.definition.columns, identity.parts
            found = self._rows(each.table, identity.tenant, wanted, _EMBEDDED_ROWS_MAX)
            self.rows[each.table] += found
            for row in found:
                self._add_embedded(each.below, each.row_key(row))

    def read_references(self) -> None:
        """Read the reference tables, whole."""
        for each in self._definition.references:
            self.rows[each.table] = self._rows(each.table, None, None, _REFERENCE_ROWS_MAX)

    def written(self) -> list[tuple[str, dict[str, Any]]]:
        """All rows, with their tables."""
        return [(table, row) for table, rows in self.rows.items() for row in rows]


def main(arguments: list[str]) -> int:
    """Preview what *arguments* ask for; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _preview(options)
    except (RowcastError, psycopg.Error) as error:
        print(f"rowcast: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rowcast sources preview")
    parser.add_argument("--project", type=Path)
    parser.add_argument("--table")
    parser.add_argument("--id")
    parser.add_argument("--last", type=int, default=10)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("source")
    return parser


def _preview(options: argparse.Namespace) -> int:
    (source,) = load_sources(options.project, [options.source])
    settings = load_settings(options.project)
    contracts = contracts_of(source, settings)
    with connect_source(settings.database(source.database)) as connection:
        catalogue = read_catalogue(connection, source.tables)
        definition = admit(source, contracts, catalogue)
        if options.save:
            key = None
        else:
            definition, key = with_hash_key(definition, settings), settings.hash_key()
        reading = Reading(definition, connection, key, catalogue)
        reading.read_references()
        asked = [
            key
            for aggregate in _aggregates(reading.trial.mapping.definition, options.table)
            for key in reading.read(aggregate, options.id, 2 if options.id else options.last)
        ]
    if options.save:
        return _save(options.save, reading, catalogue)
    outcome = reading.trial.commit(reading.written(), snapshot=True)
    return _show(reading, outcome, asked, as_json=options.json)


def _aggregates(definition: SourceDefinition, table: str | None) -> Iterable[AggregateDefinition]:
    found = [each for each in definition.aggregates if table in {None, each.table, each.name}]
    if not found:
        fix = ", ".join(each.table for each in definition.aggregates)
        raise ConfigurationError(f"no aggregate has table {table!r}", where="--table", fix=fix)
    return found


def _save(path: Path, reading: Reading, catalogue: Catalogue) -> int:
    # A case is committed: what may not be published stands there as it would be.
    kept = {name: [reading.trial.committable(name, row) for row in rows] for name, rows in reading.rows.items() if rows}
    document = case_document(reading.trial, catalogue, kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path} has {len(reading.written())} rows and {len(document['steps'][0]['events'])} events")
    return 0


def _show(reading: Reading, outcome: Outcome, asked: list[Key], *, as_json: bool) -> int:
    # What was read only because it stands above is not asked for.
    named = [key for row in asked if (key := reading.trial.aggregate_of(row)) is not None]
    wanted = set(named)
    events = [
        outcome.shown(each) for each in outcome.events if Key(each.identity.aggregate, each.identity.id_text) in wanted
    ]
    refused = [
        {"aggregate": key.aggregate, "id": key.id_text, "reason": reason}
        for key, reason in sorted(outcome.refused.items())
        if key in wanted
    ]
    left_out = len(asked) - len(named)
    if as_json:
        print(json.dumps({"events": events, "refused": refused, "left_out": left_out}, indent=2, ensure_ascii=False))
    else:
        for each in events:
            major = f" in major {each['major']}" if "major" in each else ""
            print(f"{each['aggregate']} {each['id']}: {each['kind']}{major}")
            print(f"  after      {json.dumps(each['after'], ensure_ascii=False)}")
            print(f"  ancestors  {json.dumps(each['ancestors'])}")
        for each in refused:
            print(f"{each['aggregate']} {each['id']}: refused: {each['reason']}")
        print(f"{len(events)} events, {len(refused)} refused, {left_out} rows that do not count")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
