"""Which programs a stack is made of: what is found is asked, the first good one taken, the rest explained."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from rowcast.cli.main import main
from rowcast.errors import ConfigurationError
from rowcast.local import program as program_module
from rowcast.local.choice import (
    Search,
    choose_program,
    find_program,
    installed_java,
    installed_postgres,
    refuse_foreign_data,
    refuse_running,
    remember,
    remembered_wish,
)
from rowcast.local.part import silent
from rowcast.local.processes import Account
from rowcast.local.program import BUNDLED, JAVA, POSTGRES, SYSTEM, Program, UnusableProgramError, _why_not_run, examine
from rowcast.local.stack import Stack
from rowcast.local.state import StackState
from rowcast.settings import PartsSettings, load_parts_settings, load_settings

_BUNDLED = Program("PostgreSQL", BUNDLED, "/bundled/bin", "18.4")
_NOBODY = Account("nobody", 65_534, 65_534)


def _script(path: Path, body: str, mode: int = 0o755) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(mode)


def _postgres(folder: Path, version: str) -> Path:
    """A folder whose postgres and initdb say that they are *version*."""
    for name in POSTGRES.names:
        _script(folder / name, f"echo '{name} (PostgreSQL) {version}'")
    return folder


def _java(home: Path, version: str) -> Path:
    """A Java home whose runtime says that it is *version*, in the way of Java on standard error."""
    _script(home / "bin" / "java", f"echo 'openjdk version \"{version}\" 2026-01-20' >&2")
    return home


def _search(*places: Path) -> Search:
    return Search(POSTGRES, places, "some places", "--postgres-bin", lambda: _BUNDLED)


@pytest.fixture
def state(tmp_path: Path) -> StackState:
    """The state of a stack that was never started."""
    made = StackState(tmp_path / "project" / ".rowcast")
    made.create()
    return made


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine on which nothing is installed; returns a folder that is on its PATH."""
    on_path = tmp_path / "on path"
    monkeypatch.setattr("rowcast.local.choice._INSTALLED_POSTGRES", tmp_path / "versions")
    monkeypatch.setenv("PATH", f"{on_path}:/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    for name in ("ROWCAST_PARTS", "ROWCAST_POSTGRES_BIN", "ROWCAST_JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return on_path


@pytest.mark.parametrize(
    ("said", "version", "major"),
    [
        ("17.2 (Debian 17.2-1)", "17.2", 17),
        ("14.24", "14.24", 14),
        ("19beta1", "19beta1", 19),
        ("18devel", "18devel", 18),
    ],
)
def test_postgresql_tells_its_version(tmp_path: Path, said: str, version: str, major: int) -> None:
    """Releases, packages of distributions and pre-releases are understood."""
    program = examine(POSTGRES, _postgres(tmp_path, said), SYSTEM)

    assert (program.version, program.major) == (version, major)


@pytest.mark.parametrize(("said", "major"), [("17.0.15", 17), ("25", 25), ("26-ea", 26), ("21.0.1+12-LTS", 21)])
def test_java_tells_its_version(tmp_path: Path, said: str, major: int) -> None:
    """Java's ways to write a version are understood, and standard error is listened to."""
    assert examine(JAVA, _java(tmp_path, said) / "bin", SYSTEM).major == major


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo 'postgres (PostgreSQL) 13.4'", "is 13.4, too old"),
        ("echo 'postgres (PostgreSQL) 9.6.24'", "is 9.6.24, too old"),
        ("echo hello", "says 'hello', which is no version"),
        ("true", "says '', which is no version"),
        ("echo 'libicu.so.60: cannot open' >&2; exit 127", "ends with code 127: libicu.so.60: cannot open"),
        ("printf '\\377\\376'", "which is no version"),
    ],
)
def test_unusable_postgresql_says_why(tmp_path: Path, body: str, reason: str) -> None:
    """Too old, or an answer that is none: each is a reason in words."""
    for name in POSTGRES.names:
        _script(tmp_path / name, body)

    with pytest.raises(UnusableProgramError) as caught:
        examine(POSTGRES, tmp_path, SYSTEM)

    assert reason in str(caught.value)


def test_old_java_is_too_old(tmp_path: Path) -> None:
    """Java 8 calls itself 1.8 and is not taken for anything else."""
    with pytest.raises(UnusableProgramError, match=r"is 1\.8\.0_402, too old"):
        examine(JAVA, _java(tmp_path, "1.8.0_402") / "bin", SYSTEM)


def test_missing_closed_and_foreign_programs_say_why(tmp_path: Path) -> None:
    """Nothing there, half of it there, not executable, another architecture, and two versions in one folder."""
    empty, half, mixed = tmp_path / "empty", tmp_path / "half", _postgres(tmp_path / "mixed", "16.1")
    closed, foreign = _postgres(tmp_path / "closed", "16.1"), _postgres(tmp_path / "foreign", "16.1")
    _script(half / "postgres", "echo 'postgres (PostgreSQL) 16.1'")
    _script(mixed / "initdb", "echo 'initdb (PostgreSQL) 15.3'")
    (closed / "postgres").chmod(0o644)
    # The beginning of an ELF file, for no machine that there is.
    (foreign / "postgres").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xff\xff" + bytes(200))
    reasons = {}
    for folder in (empty, half, mixed, closed, foreign):
        with pytest.raises(UnusableProgramError) as caught:
            examine(POSTGRES, folder, SYSTEM)
        reasons[folder.name] = str(caught.value)

    assert reasons == {
        "empty": "no postgres in it",
        "half": "no initdb in it",
        "mixed": "postgres is 16.1, initdb is 15.3",
        "closed": "postgres may not be executed",
        "foreign": "postgres does not run on this machine: Exec format error",
    }


def test_missing_interpreter_is_not_taken_for_a_missing_program(tmp_path: Path) -> None:
    """A program whose loader is not on this machine is there, but does not run."""
    _postgres(tmp_path, "16.1")
    (tmp_path / "postgres").write_text("#!/no/such/loader\n")

    with pytest.raises(UnusableProgramError, match="postgres does not run on this machine"):
        examine(POSTGRES, tmp_path, SYSTEM)


def test_silent_program_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that does not answer is given up."""
    monkeypatch.setattr(program_module, "_TIMEOUT_S", 0.2)
    _script(tmp_path / "bin" / "java", "exec sleep 60")

    with pytest.raises(UnusableProgramError, match="java does not answer within"):
        examine(JAVA, tmp_path / "bin", SYSTEM)


def test_program_out_of_reach_of_its_user_says_so(tmp_path: Path) -> None:
    """What root can read is of no use when the account that will run it cannot; the reason names that account."""
    _postgres(tmp_path / "closed" / "bin", "16.1")
    (tmp_path / "closed").chmod(0o700)
    denied = PermissionError(13, "Permission denied")

    reason = _why_not_run(tmp_path / "closed" / "bin" / "postgres", _NOBODY, denied)
    if os.geteuid() == 0:  # nobody else may ask as another user
        with pytest.raises(UnusableProgramError) as caught:
            examine(POSTGRES, tmp_path / "closed" / "bin", SYSTEM, _NOBODY)
        assert str(caught.value) == reason

    assert reason == "the user nobody, who would run it, cannot read postgres; open the folder to it"


def test_bundled_parts_never_look_at_the_system(tmp_path: Path) -> None:
    """With `bundled` nothing of the machine is asked or used."""
    found = find_program("bundled", _search(_postgres(tmp_path, "17.2")), silent)

    assert found == _BUNDLED


def test_first_good_place_is_taken(tmp_path: Path) -> None:
    """Places are tried in order, and one that is of no use does not end the search."""
    old, good, newer = (_postgres(tmp_path / version, version) for version in ("13.1", "15.3", "17.2"))

    found = find_program("system", _search(old, good, newer), silent)

    assert found == Program("PostgreSQL", SYSTEM, str(good), "15.3")


def test_system_without_a_good_program_is_refused_with_what_was_found(tmp_path: Path) -> None:
    """The error names the part, every place with its fault, and three ways out."""
    old, empty = _postgres(tmp_path / "old", "13.1"), tmp_path / "empty"

    with pytest.raises(ConfigurationError) as caught:
        find_program("system", _search(old, empty), silent)
    with pytest.raises(ConfigurationError, match="nothing found in some places"):
        find_program("system", _search(), silent)

    assert str(caught.value) == (
        f"PostgreSQL: none that is 14 or newer and runs: {old}: is 13.1, too old; {empty}: no postgres in it"
        " (install PostgreSQL 14 or newer, name its folder with --postgres-bin, or use --parts bundled)"
    )


def test_auto_takes_the_bundled_program_where_the_system_has_no_good_one(tmp_path: Path) -> None:
    """`auto` prefers the system, and says why when it does not use it."""
    said: list[str] = []
    good, old = _postgres(tmp_path / "good", "16.1"), _postgres(tmp_path / "old", "13.1")

    assert find_program("auto", _search(old, good), said.append).version == "16.1"
    assert said == []
    assert find_program("auto", _search(old), said.append) == _BUNDLED
    assert "is 13.1, too old; the bundled one is used" in said[0]


def test_usual_places(tmp_path: Path) -> None:
    """PATH comes first and links are followed; then the installed versions, newest first by number."""
    versions = tmp_path / "versions"
    for number in ("9.6", "9", "10", "14", "17"):
        _postgres(versions / number / "bin", number)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "postgres").symlink_to(versions / "14" / "bin" / "postgres")
    on_path = _java(tmp_path / "path", "17") / "bin"
    environ = {"PATH": f"{tmp_path / 'linked'}::{tmp_path}/none:{on_path}", "JAVA_HOME": "/opt/java"}

    assert installed_postgres(environ, versions) == [versions / n / "bin" for n in ("14", "17", "14", "10", "9")]
    assert installed_java(environ) == [Path("/opt/java/bin"), on_path]
    assert installed_java({}) == []


def test_named_folder_is_the_only_place(bare_machine: Path, tmp_path: Path, state: StackState) -> None:
    """Who names a folder gets what is in it or an error, never something else of the machine."""
    _postgres(bare_machine, "17.2")
    named = _postgres(tmp_path / "named", "13.1")
    wish = PartsSettings("system", postgres_bin=str(named))

    with pytest.raises(ConfigurationError) as caught:
        choose_program("postgres", wish, state, silent)

    assert str(named) in str(caught.value)
    assert str(bare_machine) not in str(caught.value)


def test_java_home_names_the_folder_above_bin(bare_machine: Path, tmp_path: Path, state: StackState) -> None:
    """A Java home without a runtime in `bin` is refused for every part that runs on Java."""
    wish = PartsSettings("system", java_home=str(tmp_path))

    assert not bare_machine.exists()
    for part in ("kafka", "connect"):
        with pytest.raises(ConfigurationError, match=r"Java: none that is 17 or newer and runs: .*/bin: no java in it"):
            choose_program(part, wish, state, silent)


def test_parts_are_decided_one_by_one(bare_machine: Path, tmp_path: Path, state: StackState) -> None:
    """With `auto` a good Java of the system goes together with the bundled PostgreSQL."""
    home = _java(tmp_path / "jdk", "21.0.1")
    wish = PartsSettings("auto", java_home=str(home))

    assert not bare_machine.exists()
    assert choose_program("postgres", wish, state, silent).origin == BUNDLED
    assert choose_program("kafka", wish, state, silent) == Program("Java", SYSTEM, str(home / "bin"), "21.0.1")


def test_same_wish_means_the_same_program(bare_machine: Path, tmp_path: Path, state: StackState) -> None:
    """What is installed later is not taken by a stack that has its programs, until the wish changes."""
    first = _java(tmp_path / "first", "17.0.1") / "bin"
    wish = PartsSettings("auto")
    remember(state, wish, {"kafka": Program("Java", SYSTEM, str(first), "17.0.1"), "postgres": _BUNDLED})
    _java(tmp_path / "first", "17.0.2")
    _script(bare_machine / "java", "echo 'openjdk version \"25\"'")
    _postgres(bare_machine, "17.2")

    again = choose_program("kafka", wish, state, silent)

    assert again == Program("Java", SYSTEM, str(first), "17.0.2")
    assert choose_program("postgres", wish, state, silent).origin == BUNDLED
    assert choose_program("kafka", PartsSettings("system"), state, silent).folder == str(bare_machine)


def test_removed_program_is_looked_for_again(bare_machine: Path, tmp_path: Path, state: StackState) -> None:
    """A remembered program that was removed is replaced by another one that the same wish finds."""
    wish = PartsSettings("system")
    gone = _java(tmp_path / "gone", "17.0.1")
    remember(state, wish, {"connect": Program("Java", SYSTEM, str(gone / "bin"), "17.0.1")})
    shutil.rmtree(gone)
    _script(bare_machine / "java", "echo 'openjdk version \"25\"'")

    assert choose_program("connect", wish, state, silent).version == "25"


def test_wish_and_programs_survive(state: StackState) -> None:
    """The next command reads from disk what was wished and what was chosen."""
    wish = PartsSettings("system", "/a", "/b")
    remember(state, wish, {"postgres": _BUNDLED})

    again = StackState(state.folder)

    assert remembered_wish(again) == wish
    assert again.program("postgres") == _BUNDLED
    assert again.program("kafka") is None


def test_running_part_is_not_changed(state: StackState) -> None:
    """What runs goes on with its program, or is stopped first; a moved or copied bundled one is no change."""
    other = Program("PostgreSQL", SYSTEM, "/opt/pg/bin", "18.4")
    copied = Program("PostgreSQL", BUNDLED, "/copied/bin", "18.4")
    remember(state, PartsSettings(), {"postgres": _BUNDLED})

    refuse_running(state, {"postgres": copied})
    with pytest.raises(ConfigurationError, match=r"PostgreSQL 18\.4 \(bundled\), cannot change to .*rowcast down"):
        refuse_running(state, {"postgres": other})


def test_data_of_another_major_version_are_refused(state: StackState) -> None:
    """Data are never given to another PostgreSQL; the error names the way back and the way that deletes them."""
    home = state.folder / "postgres"
    (home / "data").mkdir(parents=True)
    (home / "data" / "PG_VERSION").write_text("15\n")
    former = Program("PostgreSQL", SYSTEM, "/opt/pg15/bin", "15.3")
    remember(state, PartsSettings("system"), {"postgres": former})

    refuse_foreign_data(state, _BUNDLED)  # what an interrupted start left is made anew
    (home / "initialised").touch()
    refuse_foreign_data(state, former)
    refuse_foreign_data(state, Program("PostgreSQL", SYSTEM, "/opt/other/bin", "15.9"))
    with pytest.raises(ConfigurationError) as caught:
        refuse_foreign_data(state, _BUNDLED)

    assert "the data belong to PostgreSQL 15, but PostgreSQL 18.4 (bundled) is chosen" in str(caught.value)
    assert "--parts system --postgres-bin <bin of PostgreSQL 15>" in str(caught.value)
    assert "down --wipe" in str(caught.value)


def test_data_of_the_bundled_version_name_the_bundled_parts(state: StackState) -> None:
    """Who changes to a system PostgreSQL of another version is told how to go back."""
    (state.folder / "postgres" / "data").mkdir(parents=True)
    (state.folder / "postgres" / "data" / "PG_VERSION").write_text("18\n")
    (state.folder / "postgres" / "initialised").touch()

    with pytest.raises(ConfigurationError, match="`rowcast up --parts bundled`"):
        refuse_foreign_data(state, Program("PostgreSQL", SYSTEM, "/opt/pg15/bin", "15.3"))


def test_settings_come_from_option_environment_file_and_memory(tmp_path: Path) -> None:
    """The option wins over the environment, that over the file, that over what the stack remembers."""
    (tmp_path / "rowcast.toml").write_text('parts = "auto"\npostgres_bin = "pg/../pg15/bin"\n')
    memory = PartsSettings("system", "/remembered/bin", "/remembered/java")

    declared = load_parts_settings(tmp_path, {"ROWCAST_PARTS": "system", "ROWCAST_JAVA_HOME": "/opt/java"})

    assert declared == PartsSettings("system", str(tmp_path / "pg15/bin"), "/opt/java")
    assert load_parts_settings(tmp_path, {}).over(memory).java_home == "/remembered/java"
    assert PartsSettings("bundled").over(declared).over(memory) == PartsSettings("bundled")
    assert PartsSettings(None, "/mine").over(memory) == PartsSettings("system", "/mine", "/remembered/java")
    assert load_settings(tmp_path, {"ROWCAST_PARTS": "auto"}).brokers is None


@pytest.mark.parametrize(
    ("content", "environ", "named"),
    [
        ('parts = "sytem"', {}, "sytem"),
        ("parts = 3", {}, "parts"),
        ("java_home = true", {}, "java_home"),
        ("", {"ROWCAST_PARTS": ""}, "one of bundled, system, auto"),
        ("", {"ROWCAST_PART": "system"}, "ROWCAST_PART"),
    ],
)
def test_unknown_settings_are_refused(tmp_path: Path, content: str, environ: dict[str, str], named: str) -> None:
    """A misspelt name or value is an error that names it, not the default."""
    (tmp_path / "rowcast.toml").write_text(content)

    with pytest.raises(ConfigurationError, match=named):
        load_parts_settings(tmp_path, environ)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--java-home", "/opt/java"], "--java-home: /opt/java is named, but bundled parts are chosen"),
        (["--parts", "system", "--postgres-bin", "nowhere"], "nowhere: no postgres in it"),
        (["--parts", "system"], "PostgreSQL: none that is 14 or newer and runs: nothing found in PATH"),
    ],
)
def test_refused_parts_start_nothing(
    bare_machine: Path, tmp_path: Path, options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and a sentence; no download, no folder, no process."""
    project = tmp_path / "project"
    project.mkdir()

    assert not bare_machine.exists()
    assert main(["--project", str(project), "up", *options]) == 2
    assert named in capsys.readouterr().err
    assert list(project.iterdir()) == []


def test_status_tells_the_program_of_each_part(state: StackState, capsys: pytest.CaptureFixture[str]) -> None:
    """Status says where a part's program comes from and its version, also while it is down."""
    remember(
        state,
        PartsSettings("auto"),
        {"postgres": _BUNDLED, "kafka": Program("Java", SYSTEM, "/opt/java/bin", "17.0.1")},
    )
    project = state.folder.parent

    assert Stack(project).status()[0].program == _BUNDLED
    main(["--project", str(project), "status", "--json"])
    shown = json.loads(capsys.readouterr().out)["parts"]
    main(["--project", str(project), "status"])
    text = capsys.readouterr().out

    assert shown[1]["program"] == {"name": "Java", "origin": "system", "folder": "/opt/java/bin", "version": "17.0.1"}
    assert shown[2]["program"] is None
    assert "PostgreSQL 18.4 (bundled)" in text
    assert "Java 17.0.1 (/opt/java/bin)" in text
