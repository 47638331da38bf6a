"""What brings back a source that stopped: for which codes a command does it, and where one that died goes on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rowcast.control.recoveries import NOT_APPLIED, Recovery, recovery_from
from rowcast.control.remedies import BY_HAND, STEPS, recovery_command
from rowcast.errors import ConfigurationError

STOPS = Path(__file__).resolve().parents[2] / "docs/reference/stops.md"


def left(code: str, state: str | None, begun: tuple[str, int] | None = None) -> list[str]:
    """The steps that a recovery takes."""
    wanted = Recovery(source="shop", code=code)
    former = begun and Recovery(source="shop", code=begun[0], done=begun[1], begun=True)
    found = recovery_from(wanted, state, former or None)
    return [str(each) for each in found.steps[found.done :]]


def test_each_code_has_steps_or_says_what_to_do_by_hand() -> None:
    """And the page names the command for each that has steps, and for no other."""
    rows = [line for line in STOPS.read_text().partition("\n## ")[0].splitlines() if line.startswith("| `")]
    told = {code: "recover" in row for row in rows for code in re.findall(r"`([A-Z_]+)`", row.split("|")[1])}

    assert len(told) > 20
    assert told == {**dict.fromkeys(STEPS, True), **dict.fromkeys(BY_HAND, False)}
    assert recovery_command("shop", "SLOT_LOST") == "rowcast sources recover shop --code SLOT_LOST --yes"
    assert recovery_command("shop", "UNEXPECTED_ERROR") == "rowcast sources resume shop"


def test_a_recovery_that_died_goes_on_behind_the_steps_that_are_done() -> None:
    """Its own steps resume the source; a source that stops again with the code begins anew."""
    assert left("DATABASE_PROMOTED", "DATABASE_PROMOTED") == ["resume", "resync"]
    assert left("DATABASE_PROMOTED", None, ("DATABASE_PROMOTED", 1)) == ["resync"]
    assert left("DATABASE_PROMOTED", "DATABASE_PROMOTED", ("DATABASE_PROMOTED", 1)) == ["resume", "resync"]
    assert left("CHANGE_LOG_TRUNCATED", NOT_APPLIED, ("CHANGE_LOG_TRUNCATED", 0)) == ["rebuild"]
    assert left("SLOT_LOST", "SLOT_LOST", ("DATABASE_PROMOTED", 1)) == ["resnapshot"]


def test_halted_types_are_brought_back_by_a_resync() -> None:
    """Whatever the code; also when the call died after the types went on, and before that was noted."""
    halted = Recovery(source="shop", code="REPLICA_IDENTITY_WEAK", halted=True)
    begun = Recovery(source="shop", code="REPLICA_IDENTITY_WEAK", halted=True, done=1, begun=True)
    assert recovery_from(halted, None, None).steps == ("apply", "resync")
    assert recovery_from(halted, None, begun) is begun
    assert recovery_from(Recovery(source="shop", code="REPLICA_IDENTITY_WEAK"), None, begun) is begun


@pytest.mark.parametrize(
    ("code", "state", "begun", "told"),
    [
        ("SLOT_LOST", None, None, "is not stopped, so not with SLOT_LOST"),
        ("SLOT_LOST", None, ("DATABASE_PROMOTED", 1), "is not stopped, so not with SLOT_LOST"),
        ("SLOT_LOST", "COLUMN_CHANGED", None, "is stopped with COLUMN_CHANGED, so not with SLOT_LOST .*recover shop"),
        ("SLOT_LOST", "COLUMN_CHANGED", ("SLOT_LOST", 0), "is stopped with COLUMN_CHANGED"),
        ("SLOT_LOST", "HASH_KEY_WRONG", None, "is stopped with HASH_KEY_WRONG.*give every worker"),
        ("HASH_KEY_WRONG", "HASH_KEY_WRONG", None, "no command recovers from HASH_KEY_WRONG.*give every worker"),
        ("NONE_OF_THEM", None, None, "no recovery is known for NONE_OF_THEM"),
    ],
)
def test_what_is_not_so_is_refused(code: str, state: str | None, begun: tuple[str, int] | None, told: str) -> None:
    """The refusal names what the source is stopped with, and what to do about that."""
    with pytest.raises(ConfigurationError, match=told):
        left(code, state, begun)
