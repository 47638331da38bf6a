"""A text of the settings, with the place where it stands: in ``rowcast.toml`` or in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rowcast.errors import ConfigurationError
from rowcast.secret_file import is_reference, read_secret


@dataclass(frozen=True, slots=True)
class DeclaredText:
    """
    *text* as it stands at *where*; relative paths in it count from *folder*.

    *exposed*: others may read the place, so that a secret may stand there as a reference only.
    """

    where: str
    text: str = field(repr=False)
    folder: Path = field(repr=False)
    exposed: bool = True

    def secret(self) -> str:
        """
        The secret that is meant: what the reference names, or the text itself where it may stand.

        Raises:
            ConfigurationError: it is no reference and has to be one, or nothing stands where it leads.

        """
        if self.exposed or is_reference(self.text):
            return read_secret(self.text, self.folder, self.where)
        return self.text

    def file(self, form: str) -> str:
        """
        The path of the file that is named, which is there; *form* says what is expected in it.

        Raises:
            ConfigurationError: there is no such file.

        """
        path = self.folder / self.text
        if not path.is_file():
            raise ConfigurationError(f"there is no file {path}", where=self.where, fix=form)
        return str(path)


def declared(section: Mapping[str, str], where: str, folder: Path) -> dict[str, DeclaredText]:
    """The entries of a *section* of ``rowcast.toml`` in the project *folder*."""
    return {name: DeclaredText(f"{where}.{name}", text, folder) for name, text in section.items()}


def from_environment(names: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, DeclaredText]:
    """The settings that *environ* has, by name; *names* says which variable is which setting."""
    folder = Path.cwd()
    return {
        name: DeclaredText(variable, environ[variable], folder, exposed=False)
        for variable, name in names.items()
        if variable in environ
    }
