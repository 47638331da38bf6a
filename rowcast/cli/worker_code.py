"""Verbs that run the code of workers, which what consumers install does not import."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

from rowcast.errors import ConfigurationError


def become(module: str, arguments: argparse.Namespace, options: Sequence[str]) -> NoReturn:
    """
    Turn this process into ``python -m`` *module*, with the project of *arguments* and *options*.

    Raises:
        ConfigurationError: what the module needs is not installed.

    """
    if find_spec("requests") is None:
        raise ConfigurationError(
            "requests is not installed", where="rowcast sources", fix="pip install 'rowcast[sources]'"
        )
    sys.stdout.flush()
    command = ["-m", module, f"--project={arguments.project}", *options]
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606 - the same interpreter
