"""What a source needs in Kafka Connect: its connector, with exactly the derived configuration, running."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rowcast.connect import ConnectClient
from rowcast.errors import ConfigurationError
from rowcast.sources.change import Change, Note, Step
from rowcast.sources.connector import changed_settings, connector_name

_RUNNING_TIMEOUT_S = 90.0
_EXACTLY_ONCE = "exactly.once.support"
_WITHOUT = "does not have exactly-once source support enabled"  # as Connect words it
_PLUGIN = "debezium-connector-postgres 3.7"
_OLDEST_PLUGIN = (3, 7)
# Another value would read another database into the same change log.
_FIXED = ("connector.class", "topic.prefix", "slot.name", "publication.name", "database.dbname")


@dataclass(frozen=True, slots=True)
class Abilities:
    """What this Kafka Connect can do: *exactly_once*, whether its connectors may write with it."""

    exactly_once: bool = True

    def fitted(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """The configuration *wanted*, as far as it can be had."""
        return {**wanted} if self.exactly_once else {**wanted, _EXACTLY_ONCE: "requested"}


def refuse_unfit_connect(source: str, wanted: Mapping[str, str], connect: ConnectClient) -> Abilities:
    """
    Ask Connect whether it would take the configuration *wanted*; nothing is changed.

    Raises:
        ConfigurationError: it has no connector that is new enough, or would not take the configuration.

    """
    name, kind = connector_name(source), wanted["connector.class"]
    present = connect.configuration(name)
    settled = present is not None and not changed_settings(wanted, present)
    if not settled:
        _refuse_unfit_plugin(connect.plugin_version(kind))
    faults = connect.faults(kind, {"name": name, **wanted})
    exactly_once = not any(_WITHOUT in each for each in faults.get(_EXACTLY_ONCE, ()))
    if not exactly_once:
        del faults[_EXACTLY_ONCE]
    # Of what runs, Connect's word of exactly-once support alone is news: it may have lost that with a restart.
    for setting, messages in () if settled else faults.items():
        message = f"Kafka Connect would not take {setting}: {' '.join(messages[0].split())}"
        raise ConfigurationError(message, where=f"connector {name}", fix=_fix(setting))
    return Abilities(exactly_once)


def _refuse_unfit_plugin(version: str | None) -> None:
    if version is None:
        raise ConfigurationError(
            "has no connector for PostgreSQL", where="Kafka Connect", fix=f"{_PLUGIN} in its plugin.path; restart it"
        )
    if _numbers(version) < _OLDEST_PLUGIN:
        raise ConfigurationError(
            f"has version {version} of the connector for PostgreSQL, which may lose rows when it restarts",
            where="Kafka Connect",
            fix=f"{_PLUGIN} in its plugin.path; restart it",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", version)[:2])


def _fix(setting: str) -> str:
    if setting.startswith("producer.override."):
        return "connector.client.config.override.policy=All in Connect's settings"
    if setting.startswith("database."):
        return (
            "connect_url in the database's settings, where Connect reaches it otherwise; connect_password, which"
            " Connect's config providers look up"
        )
    return "see Connect's settings and log"


def exactly_once_note(source: str) -> Note:
    """That Connect has no exactly-once support, and what follows."""
    return Note(
        source,
        "Kafka Connect",
        "exactly.once.source.support is off: after a crash of Connect changes come twice and are recognised, and a"
        " connector that dies before its first flush stops the source",
        "exactly.once.source.support=enabled in its settings; then `rowcast sources apply`",
    )


def plan_connector(
    source: str, wanted: Mapping[str, str], connect: ConnectClient, note_capture: Callable[[], None]
) -> list[Step]:
    """
    The step that creates, alters or restarts the connector, and waits until it runs.

    *note_capture* is called before it is created.

    Raises:
        ConfigurationError: the connector exists and reads something else.

    """
    name = connector_name(source)
    present = connect.configuration(name)

    def put() -> None:
        connect.put_configuration(name, wanted)
        connect.wait_running(name, _RUNNING_TIMEOUT_S)

    def create() -> None:
        note_capture()
        put()

    def restart() -> None:
        connect.restart_failed(name)
        connect.wait_running(name, _RUNNING_TIMEOUT_S)

    what = f"connector {name}"
    if present is None:
        return [Step(Change(source, "connect", "create", what, "reads the WAL into the change log"), create)]
    for setting in _FIXED:
        if present.get(setting) != wanted.get(setting):
            raise ConfigurationError(
                f"exists with {setting} {present.get(setting)!r} instead of {wanted.get(setting)!r}",
                where=what,
                fix=f"run `rowcast sources remove {source} --yes` first, or give the source another name",
            )
    changed = changed_settings(wanted, present)
    if changed:
        return [Step(Change(source, "connect", "alter", what, "other settings: " + ", ".join(changed)), put)]
    status = connect.status(name)
    if status is not None and status.failed:
        cause = status.trace.strip().splitlines()[0] if status.trace.strip() else "no trace"
        return [Step(Change(source, "connect", "restart", what, f"it failed: {cause}"), restart)]
    return []
