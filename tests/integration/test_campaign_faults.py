"""Faults on processes that come and go."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest
from consumer_fixture import wait_until

from campaign.errors import NoVerdictError
from campaign.faults import WORKER, Fault, Faults, PlannedFault
from campaign.process import Role

NOT_NEEDED = cast("Any", None)


@pytest.mark.parametrize("kind", ["kill", "freeze"])
def test_a_process_that_has_just_died_is_waited_for(kind: str, tmp_path: Path) -> None:
    """Another fault may have killed it; it is the next one that is hit."""
    role = Role("worker-0", ["-c", "import time; time.sleep(60)"], tmp_path, {})
    fault = Fault(PlannedFault(0.0, kind, WORKER, 0.1))
    faults = Faults(NOT_NEEDED, NOT_NEEDED, {WORKER: [role]}, lambda: 1)
    role.start()
    try:
        first = role.kill()
        wait_until(role.died)
        hitting = threading.Thread(target=faults.carry_out, args=(fault,), daemon=True)
        hitting.start()
        assert fault.hit_at is None
        role.keep()
        assert role.pid() not in (first, None)
        hitting.join(20)
        assert (fault.error, fault.over, fault.in_flight) == (None, True, 1)
        assert fault.hit_at is not None
        if kind == "kill":
            wait_until(role.died)
    finally:
        faults.mend_all()
        role.close()


def test_a_process_that_nobody_starts_again_gives_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the fault could not hit."""
    monkeypatch.setattr("campaign.faults._RUNS_WITHIN_S", 0.2)
    role = Role("worker-0", ["-c", ""], tmp_path, {})
    fault = Fault(PlannedFault(0.0, "freeze", WORKER, 0.1))
    role.start()
    try:
        wait_until(role.died)
        Faults(NOT_NEEDED, NOT_NEEDED, {WORKER: [role]}, lambda: 1).carry_out(fault)
        assert isinstance(fault.error, NoVerdictError)
        assert fault.hit_at is None
    finally:
        role.close()
