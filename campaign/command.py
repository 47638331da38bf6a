"""Commands of `rowcast` as somebody at a terminal gives them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from campaign.site import Site

KILLED = "killed"


def run_command(site: Site, arguments: Sequence[str], timeout_s: float, failpoints: str = "") -> tuple[int | None, str]:
    """
    Run it in the project of *site*; its exit code, and what it said.

    After *timeout_s* it is killed, and `KILLED` is what it said.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "rowcast.cli.main", "--project", str(site.folder), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "ROWCAST_FAILPOINTS": failpoints},
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        said = KILLED
    finally:
        process.kill()
        process.wait()
    with (site.folder / "commands.log").open("a") as log:
        log.write(f"{' '.join(arguments)}: {process.returncode}\n{said}\n")
    return process.returncode, said
