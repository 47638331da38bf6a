"""Which database a draft is made of, and how the project will know it: passwords go into a private file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rowcast.errors import ConfigurationError
from rowcast.secret_file import properties_text, write_private
from rowcast.settings import STATE_FOLDER, DatabaseSettings, Settings

_KEY = "password"


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """*settings* to connect with; *parameters* are those of a url that was given, None for a name of the settings."""

    settings: DatabaseSettings
    parameters: dict[str, str] | None = field(repr=False)


def find_address(text: str, settings: Settings) -> DatabaseAddress:
    """
    The database that *text* names: a libpq connection string or URI, or a name in *settings*.

    Raises:
        ConfigurationError: it is neither.

    """
    if "://" not in text and "=" not in text:
        return DatabaseAddress(settings.database(text), None)
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        parameters = {name: str(value) for name, value in conninfo_to_dict(text).items()}
    except psycopg.ProgrammingError as error:
        # libpq's message may repeat what it could not read, a password included.
        raise ConfigurationError(
            "is no connection string or URI", where="--database", fix="postgresql://user@host:5432/name"
        ) from error
    if "sslpassword" in parameters:
        raise ConfigurationError("sslpassword is not supported", where="--database", fix="a key without passphrase")
    return DatabaseAddress(DatabaseSettings(parameters.get("dbname", "database"), text), parameters)


def declare(address: DatabaseAddress, name: str, folder: Path) -> dict[str, str] | None:
    """
    The entry of ``rowcast.toml`` for a url, under *name*; None where the settings know the database already.

    A password goes into a private file in the folder of the stack, where the Connect of `rowcast up` may read it too.
    """
    if address.parameters is None:
        return None
    from psycopg.conninfo import make_conninfo

    plain = {key: value for key, value in address.parameters.items() if key != _KEY}
    entry = {"url": make_conninfo("", **plain)}
    if _KEY in address.parameters:
        place = Path(STATE_FOLDER, "secrets", f"{name}.properties")
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place.parent / ".gitignore").write_text("*\n", encoding="utf-8")
        write_private(folder / place, properties_text({_KEY: address.parameters[_KEY]}))
        entry["password"] = f"${{file:{place}:{_KEY}}}"
        entry["connect_password"] = f"${{file:{(folder / place).resolve()}:{_KEY}}}"
    return entry
