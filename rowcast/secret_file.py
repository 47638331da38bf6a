"""
Secrets outside of settings: private files, Java properties files, and references to what stands in them.

A reference has the form of Kafka Connect's config providers: ``${file:<path>:<key>}`` names an entry of a properties
file, ``${dir:<folder>:<file>}`` all that a file holds, ``${env:<variable>}`` an environment variable. Nothing here
prints a value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from rowcast.errors import ConfigurationError

_REFERENCE = re.compile(
    r"\$\{(?:env:(?P<variable>[^:{}]+)|file:(?P<path>[^{}]+):(?P<key>[^:{}]+)|dir:(?P<folder>[^{}]+):(?P<name>[^:{}/]+))\}"
)
_ACCEPTED = "${env:VARIABLE}, ${file:PATH:KEY} for a key of a properties file, or ${dir:FOLDER:FILE} for a whole file"
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}


def is_reference(text: str) -> bool:
    """Whether *text* has the form of a reference."""
    return _REFERENCE.fullmatch(text) is not None


def read_secret(reference: str, folder: Path, where: str) -> str:
    """
    What *reference* names; relative paths count from *folder*.

    Raises:
        ConfigurationError: it is no reference, or nothing stands there; the message tells *where*, and no secret.

    """
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise ConfigurationError("is no reference to a secret", where=where, fix=_ACCEPTED)
    if found["variable"]:
        value = os.environ.get(found["variable"])
        if value is None:
            raise ConfigurationError(f"{found['variable']} is not set", where=where, fix="set it in the environment")
        return value
    if found["name"]:
        # Editors end a file with a line break that is no part of the secret.
        return _read(folder / found["folder"] / found["name"], where, "a file with the secret alone").rstrip("\r\n")
    path = folder / found["path"]
    entries = _entries(_read(path, where, "a properties file"))
    if found["key"] not in entries:
        raise ConfigurationError(f"{path} has no key {found['key']!r}", where=where, fix=f"{found['key']}=…")
    return entries[found["key"]]


def _read(path: Path, where: str, form: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigurationError(f"{path} cannot be read: {reason}", where=where, fix=form) from None


def _entries(text: str) -> dict[str, str]:
    """The entries of a properties file, one a line."""
    entries = {}
    for line in text.splitlines():
        if line.strip() and line.lstrip()[0] not in "#!":
            found = re.fullmatch(r"\s*((?:[^\\=:\s]|\\.)+)\s*[=:]?\s*(.*)", line)
            if found:
                entries[_plain(found[1])] = _plain(found[2])
    return entries


def _plain(text: str) -> str:
    units = _ESCAPE.sub(lambda each: chr(int(each[1], 16)) if each[1] else _CONTROLS.get(each[2], each[2]), text)
    # Characters beyond the first plane are written as two.
    return units.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def write_private(path: Path, text: str) -> None:
    """Write *path* in one step, readable by its owner only."""
    fresh = path.with_name(path.name + ".new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    fresh.replace(path)


def properties_text(values: Mapping[str, object]) -> str:
    """A Java properties file, with everything escaped that the format gives a meaning to."""
    return "".join(f"{_escaped(name)}={_escaped(str(value))}\n" for name, value in values.items())


def _escaped(text: str) -> str:
    pieces = []
    for character in text:
        if character in "\\=:#! ":
            pieces.append("\\" + character)
        elif character.isascii() and character.isprintable():
            pieces.append(character)
        else:
            units = character.encode("utf-16-be")
            pieces += [f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)]
    return "".join(pieces)
