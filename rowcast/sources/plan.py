"""
Plan and apply: the difference between what source files declare and what there is, and making it go away.

Everything that can be refused is refused before the first change. The order of the changes is part of the
promise: publication before slot, topics before their writers, the connector last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import psycopg

from rowcast.connect import ConnectClient
from rowcast.contracts.contract import Contract
from rowcast.control.database import connect as connect_control
from rowcast.control.halts import halted_tables
from rowcast.errors import ConfigurationError, DatabaseUnavailableError
from rowcast.settings import Settings
from rowcast.sources.admission import refuse_unfit
from rowcast.sources.capture import note_capture
from rowcast.sources.catalogue import Catalogue, connect_source, read_catalogue
from rowcast.sources.change import Change, Step, Tell, untold
from rowcast.sources.change_log_size import ChangeLogEstimate, estimate_change_log, no_estimate, read_activity
from rowcast.sources.compilation import compile_definition
from rowcast.sources.connector import connector_configuration
from rowcast.sources.connector_plan import Abilities, exactly_once_note, plan_connector, refuse_unfit_connect
from rowcast.sources.control_plan import hold_apply_lock, plan_definition, plan_migrations
from rowcast.sources.declared_contract import contracts_of
from rowcast.sources.definition import SourceDefinition
from rowcast.sources.left_topic import LeftTopic, left_topics
from rowcast.sources.shielded_column import is_hashing
from rowcast.sources.source_database import plan_source_database
from rowcast.sources.source_file import SourceFile
from rowcast.sources.tenant_publishing import missing_note
from rowcast.sources.topic_plan import TopicAdmin, plan_topics

APPLICATION = "rowcast sources"


class Plan:
    """
    What has to change for one source; use it as a context manager: its steps hold connections.

    *tell* hears what is not as it should be. *abilities* are those of Connect, where it was asked before.
    """

    def __init__(
        self, source: SourceFile, settings: Settings, tell: Tell = untold, abilities: Abilities | None = None
    ) -> None:
        self.source, self.settings = source, settings
        self.abilities = abilities
        self._tell = tell
        self.steps: list[Step] = []
        self._open = ExitStack()

    def __enter__(self) -> Plan:
        try:
            self.steps = self._steps()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._open.close()

    @property
    def changes(self) -> list[Change]:
        """The changes, in the order in which they are made."""
        return [step.change for step in self.steps]

    def _steps(self) -> list[Step]:
        source, settings = self.source, self.settings
        contracts = contracts_of(source, settings)
        database = settings.database(source.database)
        connection = self._open.enter_context(connect_source(database))
        catalogue = read_catalogue(connection, source.tables)
        definition = with_hash_key(admit(source, contracts, catalogue), settings)
        wanted = connector_configuration(definition, database, server_version=catalogue.version)
        control = self._open.enter_context(
            connect_control(settings.control().url, application=APPLICATION, autocommit=True)
        )
        admin = self._open.enter_context(TopicAdmin(settings.kafka()))
        connect = self._open.enter_context(ConnectClient(settings.connect()))
        unpublishing = missing_note(definition, connection)
        if unpublishing is not None:
            self._tell(unpublishing)
        note = partial(note_capture, definition, control, connection, settings.kafka())
        # First of all, because it knows best why a running source cannot have another table.
        stored = plan_definition(definition, control)
        return [
            *plan_migrations(source.source, control),
            *plan_source_database(definition, catalogue, connection, halted_tables(control, source.source)),
            *plan_topics(definition, admin, self._tell),
            *stored,
            *plan_connector(source.source, self._fitted(wanted, connect), connect, note),
        ]

    def _fitted(self, wanted: Mapping[str, str], connect: ConnectClient) -> dict[str, str]:
        """*wanted*, as far as this Connect can have it."""
        if self.abilities is None:
            self.abilities = refuse_unfit_connect(self.source.source, wanted, connect)
            if not self.abilities.exactly_once:
                self._tell(exactly_once_note(self.source.source))
        return self.abilities.fitted(wanted)


def admit(source: SourceFile, contracts: dict[str, Contract], catalogue: Catalogue) -> SourceDefinition:
    """The definition of *source*, after everything that forbids it was refused."""
    refuse_unfit(source, catalogue)
    return compile_definition(source, contracts, catalogue)


def with_hash_key(definition: SourceDefinition, settings: Settings) -> SourceDefinition:
    """
    *definition*, bound to the key of the settings where it hashes fields.

    Raises:
        ConfigurationError: it does, and there is no key.

    """
    if not is_hashing(definition):
        return definition
    key = settings.hash_key()
    if key is None:
        raise ConfigurationError(
            "fields are hashed, and there is no key for it",
            where=f"source {definition.source}",
            fix="hash_key in rowcast.toml, a reference, or ROWCAST_HASH_KEY; the same for every worker",
        )
    return replace(definition, hash_key_id=key.id)


def plan(sources: Iterable[SourceFile], settings: Settings, tell: Tell = untold) -> list[Change]:
    """
    What `apply` would change, in order. Touches nothing. *tell* hears what is not as it should be.

    Raises:
        ConfigurationError: something is refused; see the message.

    """
    return _plan(sources, settings, tell)[0]


def _plan(sources: Iterable[SourceFile], settings: Settings, tell: Tell) -> tuple[list[Change], dict[str, Abilities]]:
    changes: list[Change] = []
    abilities: dict[str, Abilities] = {}
    for source in sources:
        with translated(), Plan(source, settings, tell) as planned:
            shared = {(change.area, change.object) for change in changes}
            changes.extend(change for change in planned.changes if (change.area, change.object) not in shared)
            assert planned.abilities is not None, "Connect was asked"
            abilities[source.source] = planned.abilities
    return changes, abilities


def estimate(sources: Iterable[SourceFile], settings: Settings) -> list[ChangeLogEstimate]:
    """
    The estimated size of each source's change log. Touches nothing.

    Raises:
        ConfigurationError: something is refused; see the message.

    """
    estimates = []
    for source in sources:
        with translated(), connect_source(settings.database(source.database)) as connection:
            catalogue = read_catalogue(connection, source.tables)
            definition = admit(source, contracts_of(source, settings), catalogue)
            try:
                estimates.append(estimate_change_log(definition, read_activity(connection, catalogue.present)))
            except psycopg.Error as error:  # information only: what plan found has to be told all the same
                estimates.append(no_estimate(definition, str(error).strip()))
    return estimates


def left_over(sources: Iterable[SourceFile], settings: Settings) -> list[LeftTopic]:
    """
    The topics of majors that are not live any more, and who reads them. Touches nothing.

    Raises:
        ConfigurationError: something is refused; see the message.

    """
    left: list[LeftTopic] = []
    for source in sources:
        with translated(), connect_source(settings.database(source.database)) as connection:
            definition = admit(source, contracts_of(source, settings), read_catalogue(connection, source.tables))
        with TopicAdmin(settings.kafka()) as admin:
            left += left_topics(definition, admin)
    return left


def apply(
    sources: Sequence[SourceFile],
    settings: Settings,
    progress: Callable[[Change], None] = lambda _change: None,
    tell: Tell = untold,
) -> list[Change]:
    """
    Make everything as declared and return what was changed; *progress* hears of each change before it is made, and
    *tell* what is not as it should be all the same.

    Idempotent: a second call changes nothing. One at a time for a control database.

    Raises:
        ConfigurationError: something is refused, or a change failed; what was done before stays and the next
            call goes on from there.

    """
    _, abilities = _plan(sources, settings, tell)  # refuse whatever can be refused in any of them first
    changes = []
    with translated(), connect_control(settings.control().url, application=APPLICATION, autocommit=True) as lock:
        hold_apply_lock(lock)
        for source in sources:
            with Plan(source, settings, abilities=abilities[source.source]) as planned:
                for step in planned.steps:
                    progress(step.change)
                    step.run()
                    changes.append(step.change)
    return changes


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of PostgreSQL into those of this project."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            str(error).strip(), where="database", fix="let a DBA run what `rowcast sources plan --sql` prints"
        ) from error
    except psycopg.OperationalError as error:
        raise DatabaseUnavailableError(str(error).strip()) from error
