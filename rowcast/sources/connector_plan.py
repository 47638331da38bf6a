"""What a source needs in Kafka Connect: its connector, with exactly the derived configuration, running."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rowcast.connect import ConnectClient
from rowcast.errors import ConfigurationError
from rowcast.sources.change import Change, Step
from rowcast.sources.connector import changed_settings, connector_name

_RUNNING_TIMEOUT_S = 90.0
# Another value would read another database into the same change log.
_FIXED = ("connector.class", "topic.prefix", "slot.name", "publication.name", "database.dbname")


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
