"""
What brings back a source that stopped with a code: the steps that `rowcast sources recover` takes, or a person.

Each code of docs/reference/stops.md is in one of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class RecoveryStep(StrEnum):
    """A verb of `rowcast sources`."""

    APPLY = "apply"
    RESUME = "resume"
    RESNAPSHOT = "resnapshot"
    RESYNC = "resync"
    REBUILD = "rebuild"


_REBUILD = (RecoveryStep.REBUILD,)
_RESNAPSHOT = (RecoveryStep.RESNAPSHOT,)

STEPS: Mapping[str, tuple[RecoveryStep, ...]] = {
    # The place in the change log is lost, or its LSNs belong to another history.
    "CHANGE_LOG_GONE": _REBUILD,
    "CHANGE_LOG_RECREATED": _REBUILD,
    "CHANGE_LOG_TRUNCATED": _REBUILD,
    "CONTROL_DATABASE_BEHIND": _REBUILD,
    "DATABASE_REPLACED": _REBUILD,
    "INCOMPLETE_TRANSACTION": _REBUILD,
    "SOURCE_WENT_BACK": _REBUILD,
    "TOPIC_GONE": _REBUILD,
    # Changes are in no event, or a snapshot is not whole.
    "COLUMN_CHANGED": _RESNAPSHOT,
    "PARTITIONS_CHANGED": _RESNAPSHOT,
    "PUBLICATION_INCOMPLETE": _RESNAPSHOT,
    "PUBLICATION_MISSING": _RESNAPSHOT,
    "PUBLICATION_RECREATED": _RESNAPSHOT,
    "SLOT_LOST": _RESNAPSHOT,
    "SNAPSHOT_INTERRUPTED": _RESNAPSHOT,
    "TABLE_MISSING": _RESNAPSHOT,
    # Nothing is missing, but what was told last may never have been.
    "DATABASE_PROMOTED": (RecoveryStep.RESUME, RecoveryStep.RESYNC),
    "NOT_APPLIED": (RecoveryStep.APPLY,),
    "TABLE_NOT_DECLARED": (RecoveryStep.APPLY, RecoveryStep.RESUME),
}

# What brings back halted types: the file may have been changed, and their rows are read anew.
HALTED_STEPS = (RecoveryStep.APPLY, RecoveryStep.RESYNC)

# What no command can do.
BY_HAND: Mapping[str, str] = {
    "DOMAIN_TOPIC_TRUNCATED": "restore the topic, or start anew: docs/reference/stops.md",
    "FOREIGN_WRITER": "find the writer, and take its right to write; docs/reference/stops.md",
    "FUNCTIONS_UNUSABLE": "install on every worker what the module of the functions imports, then resume",
    "HASH_KEY_WRONG": "give every worker the key with which the source was applied, then resume",
    "MALFORMED_CHANGE": "find who writes to the change log, or has changed the connector; report it with the log;"
    " `rowcast sources rebuild` goes on behind it, with a new snapshot",
    "REPLICA_IDENTITY_WEAK": "ALTER TABLE … REPLICA IDENTITY, then resume",
    "ROW_WITHOUT_ID": "check the table's replica identity and ids, change the source file, then resume",
    "TOO_MANY_REFUSALS": "mend contract or mapping, apply, then resume",
    "UNEXPECTED_ERROR": "report it with the worker's log, then resume",
}


def recovery_command(source: str, code: str) -> str:
    """The command that brings *source* back, in one line without quotes."""
    if code in STEPS:
        return f"rowcast sources recover {source} --code {code} --yes"
    return f"rowcast sources resume {source}"
