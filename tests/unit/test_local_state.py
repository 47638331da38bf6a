"""What a stack remembers, and the files it writes for others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rowcast.errors import ConfigurationError
from rowcast.local.locks import held_lock
from rowcast.local.part import silent
from rowcast.local.postgres import may_reach
from rowcast.local.processes import Account, Command, RunningProcess, log_tail, run_to_end, start_detached
from rowcast.local.stack import Stack, declared_databases
from rowcast.local.state import StackState, refuse_unusable
from rowcast.secret_file import properties_text, read_secret


def test_values_survive_and_stay_private(tmp_path: Path) -> None:
    """Ports, password and processes are on disk at once, readable by the owner alone."""
    state = StackState(tmp_path / "state")
    state.create()
    state.put("port.kafka", 20_000)
    state.put_process("kafka", RunningProcess(17, 1.5))

    again = StackState(tmp_path / "state")

    assert again.get("port.kafka") == 20_000
    assert again.process("kafka") == RunningProcess(17, 1.5)
    assert again.password == state.password
    assert (tmp_path / "state" / "state.json").stat().st_mode & 0o077 == 0


def test_two_stacks_have_nothing_in_common(tmp_path: Path) -> None:
    """Identity and password are random for each stack."""
    first, second = StackState(tmp_path / "a"), StackState(tmp_path / "b")
    first.create()
    second.create()

    assert first.stack_id != second.stack_id
    assert first.password != second.password


def test_damaged_state_names_the_fix(tmp_path: Path) -> None:
    """A state file that cannot be read is an error with the command that mends it, never a new stack."""
    (tmp_path / "state.json").write_text("{")

    with pytest.raises(ConfigurationError, match="rowcast down --wipe"):
        StackState(tmp_path)


def test_unusable_path_is_refused() -> None:
    """A folder whose name would split a list in Kafka's configuration is refused before anything starts."""
    with pytest.raises(ConfigurationError, match=r"the path contains ','"):
        refuse_unusable(Path("/srv/a,b"))


def test_properties_escape_what_java_would_interpret() -> None:
    """Spaces, separators, backslashes and characters outside ASCII reach Java unchanged."""
    assert properties_text({"log.dirs": "/a b/ü\\=:"}) == "log.dirs=/a\\ b/\\u00fc\\\\\\=\\:\n"


@pytest.mark.parametrize("secret", ["plain", " a b ", "p:w=d#!\\", "ü€𝄞", "\ttab\nline", "${env:HOME}", ""])
def test_a_secret_is_read_back_from_its_file(tmp_path: Path, secret: str) -> None:
    """Whatever a password holds, the reference to its file gives it again."""
    (tmp_path / "a.properties").write_text("# note\n" + properties_text({"other": "1", "pass word": secret}))
    assert read_secret("${file:a.properties:pass word}", tmp_path, "here") == secret


@pytest.mark.parametrize(
    "reference", ["geheim", "${env:NO_SUCH_GEHEIM}", "${file:none:geheim}", "${file:a:geheim}", "${vault:geheim}"]
)
def test_a_reference_to_nothing_names_the_place(tmp_path: Path, reference: str) -> None:
    """The message says where it stands and what is accepted; what was given instead of a reference is not shown."""
    (tmp_path / "a").write_text("key=value")
    with pytest.raises(ConfigurationError, match=r"^here: ") as refused:
        read_secret(reference, tmp_path, "here")
    assert reference.startswith("$") or reference not in str(refused.value)


def test_reused_pid_is_not_taken_for_the_process() -> None:
    """A process with the remembered pid but another start time counts as dead and is never signalled."""
    stranger = RunningProcess(os.getpid(), started_at=1.0)

    assert not stranger.alive()
    assert stranger.stop(signal.SIGKILL, timeout_s=0.1)


def test_detached_process_is_stopped_and_its_log_kept(tmp_path: Path) -> None:
    """A started process lives in its own session, ends when asked, and its output stays readable."""
    program = "import os,sys,time; print('session', os.getsid(0) == os.getpid(), flush=True); time.sleep(600)"
    log = tmp_path / "log"
    process = start_detached(Command([sys.executable, "-c", program], log))
    deadline_s = time.monotonic() + 20
    while not log_tail(log) and time.monotonic() < deadline_s:
        threading.Event().wait(0.02)

    assert process.alive()
    assert log_tail(log) == ["session True"]
    assert (process.pss_mb() or 0) > 1
    assert process.stop(signal.SIGTERM, timeout_s=10)
    assert not process.alive()


def test_cancelled_preparation_is_killed(tmp_path: Path) -> None:
    """A preparing program is killed as soon as the start is cancelled, and says so by having no exit code."""
    cancelled = threading.Event()
    cancelled.set()
    command = Command([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "log")

    assert run_to_end(command, timeout_s=60, cancelled=cancelled) in (None, -9)


def test_lock_is_held_against_other_processes(tmp_path: Path) -> None:
    """While one process holds the lock, another gives up with the file's name when its time is over."""
    program = (
        "import sys; from pathlib import Path; from rowcast.local.locks import held_lock\n"
        "with held_lock(Path(sys.argv[1]), timeout_s=0.2, what='a test', progress=print): pass"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "lock")]
    with held_lock(tmp_path / "lock", timeout_s=1, what="nobody", progress=silent):
        refused = subprocess.run(arguments, capture_output=True, text=True, check=False)
    allowed = subprocess.run(arguments, capture_output=True, text=True, check=False)

    assert "a test has held this lock" in refused.stderr
    assert allowed.returncode == 0


def test_databases_are_read_from_the_connector_files(tmp_path: Path) -> None:
    """Every file's top-level `database` counts; what cannot be read is left for `sources` to report."""
    (tmp_path / "connectors").mkdir()
    (tmp_path / "connectors" / "a.yaml").write_text("database: inventory\ntables: []\n")
    (tmp_path / "connectors" / "b.yaml").write_text("database: [broken\n")
    (tmp_path / "connectors" / "c.yaml").write_text("- a list\n")

    assert declared_databases(tmp_path) == {"inventory"}


def test_no_stack_is_no_fault(tmp_path: Path) -> None:
    """In a folder without a stack, status is empty, down has nothing to do, and nothing is created."""
    stack = Stack(tmp_path)

    assert stack.status() == []
    assert not stack.meant_to_run()
    assert not stack.down()
    assert list(tmp_path.iterdir()) == []


def test_stopped_stack_shows_its_parts_without_logs(tmp_path: Path) -> None:
    """After an orderly stop the parts are down with their remembered ports, and no log explains a fault."""
    state = StackState(tmp_path / ".rowcast")
    state.create()
    state.put("port.postgres", 20_001)

    parts = Stack(tmp_path).status()

    assert [(part.name, part.alive, part.log_tail) for part in parts] == [
        ("postgres", False, ()),
        ("kafka", False, ()),
        ("connect", False, ()),
    ]
    assert parts[0].port == 20_001


def test_dead_part_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    """A part that was started and is gone is down, and its log's last lines say why."""
    state = StackState(tmp_path / ".rowcast")
    state.create()
    state.put("port.kafka", 20_002)
    state.put_process("kafka", RunningProcess(os.getpid(), started_at=1.0))
    (tmp_path / ".rowcast" / "logs" / "kafka.log").write_text("\n".join(f"line {n}" for n in range(100)))

    kafka = Stack(tmp_path).status()[1]

    assert (kafka.alive, kafka.pid) == (False, None)
    assert kafka.log_tail[-1] == "line 99"
    assert len(kafka.log_tail) < 100


def test_closed_folder_is_noticed(tmp_path: Path) -> None:
    """An account that may not pass through a folder above is known not to reach what is inside."""
    inside = tmp_path / "closed" / "inside"
    inside.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    stranger = Account("stranger", uid=54_321, gid=54_321)

    assert not may_reach(stranger, inside)
    assert may_reach(stranger, Path("/usr"))
