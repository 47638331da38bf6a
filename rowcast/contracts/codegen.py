"""
Generated Python modules of events, one for each contract and major: written, or compared with what is there.

Only files that carry the mark are ever replaced or removed.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable
from pathlib import Path

from rowcast.contracts.checking import check_rules
from rowcast.contracts.contract import Contract, contract_paths, load_contract
from rowcast.contracts.python_type import MARK, module_text
from rowcast.errors import ConfigurationError

_PACKAGE = f'"""\nTypes of events, by domain.\n\n{MARK}; do not edit.\n"""\n'
_MARK_WITHIN = 1000


def newest_contracts(schemas: Path) -> list[Contract]:
    """
    The newest version of each major of each contract.

    Raises:
        ConfigurationError: there is none, or one cannot be read or is outside the profile.

    """
    newest: dict[tuple[str, str, int], Path] = {}
    for path, match in contract_paths(schemas):
        key = (path.parent.parent.name, path.parent.name, int(match[1]))
        if key not in newest or _minor(path) > _minor(newest[key]):
            newest[key] = path
    if not newest:
        raise ConfigurationError("no contract", where=str(schemas), fix="write <domain>/<aggregate>/v1.0.json")
    contracts = [load_contract(newest[key]) for key in sorted(newest)]
    findings = [str(finding) for contract in contracts for finding in check_rules(contract)]
    if findings:
        raise ConfigurationError("\n".join(findings), fix="`rowcast schemas check`")
    return contracts


def _minor(path: Path) -> int:
    return int(path.stem.rpartition(".")[2])


def generated_files(contracts: Iterable[Contract]) -> dict[str, str]:
    """
    The text of each module by its path below the folder of generated code: ``<domain>/<aggregate>_v<major>.py``.

    Raises:
        ConfigurationError: two domains would share a package.

    """
    files = {"__init__.py": _PACKAGE}
    domains: dict[str, str] = {}
    for contract in contracts:
        package = contract.domain + "_" if keyword.iskeyword(contract.domain) else contract.domain
        if domains.setdefault(package, contract.domain) != contract.domain:
            where = f"{contract.domain}, {domains[package]}"
            raise ConfigurationError("both domains would be one Python package", where=where, fix="rename one of them")
        files[f"{package}/__init__.py"] = _PACKAGE
        files[f"{package}/{contract.aggregate}_v{contract.major}.py"] = module_text(contract)
    return files


def drift(out: Path, files: dict[str, str]) -> dict[str, str]:
    """
    What is not as generated below *out*, by path: ``missing``, ``differs``, or ``stale`` (of no contract).

    Raises:
        ConfigurationError: a file that was not generated stands where one belongs.

    """
    found: dict[str, str] = {}
    for name, text in files.items():
        path = out / name
        if not path.exists():
            found[name] = "missing"
        elif not _is_generated(path):
            if path.name != "__init__.py":
                raise ConfigurationError("was not generated", where=str(path), fix="move it, or name another folder")
        elif path.read_bytes() != text.encode():
            found[name] = "differs"
    for path in sorted([*out.glob("*.py"), *out.glob("*/*.py")]):
        name = path.relative_to(out).as_posix()
        if name not in files and _is_generated(path):
            found[name] = "stale"
    return dict(sorted(found.items()))


def write(out: Path, files: dict[str, str], changes: dict[str, str]) -> None:
    """Make the *changes* that `drift` has found below *out*."""
    for name, what in changes.items():
        path = out / name
        if what == "stale":
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[name].encode())


def _is_generated(path: Path) -> bool:
    with path.open("rb") as file:
        return MARK.encode() in file.read(_MARK_WITHIN)
