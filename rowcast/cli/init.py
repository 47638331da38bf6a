"""``rowcast init``: a project from a database: source file, first contracts, and what stands around them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rowcast.cli.count import counted
from rowcast.cli.verbs import Verbs, add_json

if TYPE_CHECKING:
    from rowcast.draft.drafting import Draft
    from rowcast.draft.project_files import Written


def register(verbs: Verbs) -> None:
    """Add the verb `init`."""
    init = verbs.verb(
        "init",
        _init,
        "write source file, first contracts, settings, CI workflow, containers and README, from what a database says",
        "--database postgresql://reader@db.example.org:5432/shop",
        "--database shop --table public.orders --table public.order_line",
        "--database shop --folder events/shop --json",
        description="Reads a PostgreSQL database and writes a project that `rowcast schemas check` and `rowcast sources"
        " plan` accept at once. What cannot be carried over stands in the source file as a comment with the reason."
        " Files that are there are kept, and named. Exit code 0: everything is written; 1: a part of the draft was kept"
        " as it was; 2: nothing could be read or written.",
    )
    init.add_argument(
        "--database",
        metavar="URL",
        help="connection string or URI of the database, or its name in the settings; without it only settings,"
        " workflow, containers and README are written",
    )
    init.add_argument("--folder", type=Path, metavar="FOLDER", help="write there (default: the project folder)")
    init.add_argument("--source", metavar="NAME", help="name of source and domain (default: that of the database)")
    init.add_argument(
        "--table", action="append", default=[], metavar="TABLE", help="only this table; may be given several times"
    )
    init.add_argument(
        "--overwrite", action="store_true", help="replace source file and contracts that are there and differ"
    )
    add_json(init)


def _init(arguments: argparse.Namespace) -> int:
    from rowcast.draft.database_address import find_address
    from rowcast.draft.drafting import read_draft, write_draft, write_frame
    from rowcast.errors import ConfigurationError
    from rowcast.settings import load_settings
    from rowcast.sources.source_file import SOURCE_NAME, SOURCE_NAME_FORM

    folder: Path = arguments.folder or arguments.project
    draft = None
    if arguments.database is None:
        if arguments.source or arguments.table:
            raise ConfigurationError("needs --database", where="--source, --table", fix="the url or name of a database")
        written = write_frame(folder)
    else:
        if arguments.source and not SOURCE_NAME.fullmatch(arguments.source):
            raise ConfigurationError(f"{arguments.source!r} is no name", where="--source", fix=SOURCE_NAME_FORM)
        address = find_address(arguments.database, load_settings(arguments.project))
        draft = read_draft(address, arguments.source, arguments.table)
        written = write_draft(folder, address, draft, overwrite=arguments.overwrite)
    if arguments.json:
        print(json.dumps(_document(written, draft), indent=2))
    else:
        _tell(written, draft)
    return 1 if any(each.is_finding for each in written) else 0


def _document(written: list[Written], draft: Draft | None) -> dict[str, object]:
    files = [{"path": str(each.path), "outcome": each.outcome} for each in written]
    if draft is None:
        return {"files": files}
    aggregates = [
        {"aggregate": each.name, "table": each.table.name, "ancestors": list(each.ancestors), "notes": list(each.notes)}
        for each in draft.outline.aggregates
    ]
    return {
        "source": draft.source,
        "aggregates": aggregates,
        "left_out": draft.outline.left_out,
        "server": list(draft.server),
        "files": files,
    }


def _tell(written: list[Written], draft: Draft | None) -> None:
    from rowcast.contracts.contract import EVENT_SUFFIX

    for each in written:
        # Of each contract one line is enough; what is kept is always said.
        beside = "examples" in each.path.parts or each.path.name.endswith(EVENT_SUFFIX)
        if each.outcome in {"kept", "replaced"} or not beside:
            print(f"{each.outcome:<10} {each.path}")
    if any(each.is_finding for each in written):
        print("rowcast: what is kept differs from the draft; --overwrite replaces it", file=sys.stderr)
    if draft is None:
        print("next: rowcast init --database URL")
        return
    outline = draft.outline
    notes = sum(len(each.notes) for each in outline.aggregates)
    print(
        f"{counted(len(outline.aggregates), 'aggregate')}, {counted(len(outline.left_out), 'table')} left out,"
        f" {counted(notes, 'note')}: connectors/{draft.source}.yaml has the reasons"
    )
    for line in draft.server:
        print(f"before `rowcast sources apply`: {line}")
    print("next: read README.md; rowcast schemas lint; rowcast sources plan")
