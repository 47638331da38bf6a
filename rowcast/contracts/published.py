"""What was published before: the contracts of a folder, or of a commit, read without checking anything out."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rowcast.contracts.contract import FOLDER, contract_files, contract_version
from rowcast.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Published:
    """The contract files by their path below the schemas folder, and what they are called in messages."""

    name: str
    files: dict[str, bytes]


def published(against: str, schemas: Path, *, merge_base: bool = True) -> Published:
    """
    The contracts of *against*: a folder (a schemas folder, or a project's), or a git ref.

    For a ref it is where the current commit left it (*merge_base*), so that its own later changes count for nothing.

    Raises:
        ConfigurationError: there is no such folder or ref, or git does not know enough history.

    """
    folder = Path(against)
    if folder.is_dir():
        folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in contract_files(folder)}
        return Published(against, files)
    return _of_commit(against, schemas, merge_base=merge_base)


def _of_commit(ref: str, schemas: Path, *, merge_base: bool) -> Published:
    at = schemas if schemas.is_dir() else schemas.parent
    top = Path(_git(at, "rev-parse", "--show-toplevel").strip())
    commit = _commit(top, ref)
    if merge_base:
        commit = _merge_base(top, ref, commit)
    prefix = schemas.resolve().relative_to(top.resolve()).as_posix()
    listed = _git(top, "ls-tree", "-r", "-z", "--full-tree", commit, "--", f"{prefix}/")
    entries = [entry.partition("\t") for entry in listed.split("\0") if contract_version(Path(entry))]
    wanted = {head.split()[2]: None for head, _tab, _path in entries}
    contents = _blobs(top, list(wanted))
    files = {
        PurePosixPath(path).relative_to(prefix).as_posix(): contents[head.split()[2]] for head, _tab, path in entries
    }
    return Published(ref, files)


def _commit(top: Path, ref: str) -> str:
    try:
        return _git(top, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}").strip()
    except ConfigurationError as error:
        remote, slash, branch = ref.partition("/")
        fetch = f"git fetch {remote} {branch}:refs/remotes/{ref}" if slash else f"git fetch origin {ref}"
        deepen = " --depth=1" if _shallow(top) else ""
        fix = fetch.replace("git fetch", f"git fetch{deepen}")
        raise ConfigurationError(f"git knows no {ref}", where=str(top), fix=f"`{fix}`, or name another ref") from error


def _merge_base(top: Path, ref: str, commit: str) -> str:
    try:
        return _git(top, "merge-base", "@", commit).strip()
    except ConfigurationError as error:
        if _shallow(top):
            fix = "`git fetch --unshallow origin`, or `--no-merge-base`"
            message = f"the clone is shallow, so that git cannot tell where this branch left {ref}"
        else:
            fix, message = "`--no-merge-base`", f"{ref} and the current commit have no common ancestor"
        raise ConfigurationError(message, where=str(top), fix=fix) from error


def _shallow(top: Path) -> bool:
    return _git(top, "rev-parse", "--is-shallow-repository").strip() == "true"


def _blobs(top: Path, names: list[str]) -> dict[str, bytes]:
    output = _run(top, ["cat-file", "--batch"], "".join(f"{name}\n" for name in names).encode())
    contents, at = {}, 0
    for name in names:
        end = output.index(b"\n", at)
        header = output[at:end].split()
        if len(header) != 3:
            raise ConfigurationError(f"git lacks the object {name}", where=str(top), fix="`git fetch --refetch origin`")
        size = int(header[2])
        contents[name] = output[end + 1 : end + 1 + size]
        at = end + size + 2
    return contents


def _git(at: Path, *arguments: str) -> str:
    return _run(at, list(arguments)).decode()


def _run(at: Path, arguments: list[str], given: bytes | None = None) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(at), *arguments], input=given, capture_output=True, check=True)
    except FileNotFoundError as error:
        raise ConfigurationError("git is not installed", fix="install it, or compare with a folder") from error
    except subprocess.CalledProcessError as error:
        message = error.stderr.decode(errors="replace").strip() or f"git {arguments[0]} failed"
        raise ConfigurationError(message, where=str(at), fix="run it inside a git repository") from error
    return done.stdout
