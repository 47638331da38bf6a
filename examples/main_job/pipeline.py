"""
The pipeline of one project folder, brought up part by part: stack, databases, catalogue, source, worker, consumer.

Whatever runs already is gone on with.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

from examples.inventory import catalogue
from examples.main_job.companions import Companions
from examples.main_job.options import Options
from examples.main_job.progress import tell
from examples.orders.lines import create_tables, place_order
from rowcast.errors import ConfigurationError
from rowcast.local.processes import RunningProcess
from rowcast.local.stack import Stack
from rowcast.settings import Settings, load_settings

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = "inventory"
_APPLICATION = "inventory_application"
COMPANIONS = ("worker", "consumer")
_PROJECT = "PROJECT"
_WORKER = ("-m", "rowcast.cli.main", "--project", _PROJECT, "worker", "--web-port", "0")
_CONSUMER = ("-m", "examples.orders", "--project", _PROJECT)
_ORDERED_ITEMS = 200
_COMMAND_TIMEOUT_S = 120.0


class PipelineError(Exception):
    """The pipeline could not be brought up."""


class Pipeline:
    """Everything that runs for *options*; `bring_up` first, then the connections and settings."""

    def __init__(self, options: Options) -> None:
        self._options = options
        os.environ.update(options.stack or {})  # as whoever runs this could have set them
        self.stack = Stack(options.project)
        self.companions = Companions(self.stack.folder)
        self.run_started_at = time.time()
        self.public: dict[str, Any] = {}
        self.fresh = False

    @property
    def settings(self) -> Settings:
        """Where everything is, as any command of this project would find it."""
        return load_settings(self._options.project)

    @property
    def inventory_url(self) -> str:
        """The source database, as the inventory service logs in."""
        settings = self.settings
        return settings.database(_APPLICATION if _APPLICATION in settings.databases else SOURCE).url

    @property
    def orders_url(self) -> str:
        """The consumer's database."""
        return self.settings.database("orders").url

    @property
    def started_stack(self) -> bool:
        """Whether this run started the stack."""
        return float(self.public.get("started_at") or 0.0) >= self.run_started_at

    @property
    def counted_from(self) -> float:
        """When the first server process started, or this run where the stack ran already (Unix time)."""
        return float(self.public["started_at"]) if self.started_stack else self.run_started_at

    def start_servers(self) -> None:
        """The stack with both services' databases."""
        bring_declarations(self._options.project)
        if self._options.stack is None:
            self.public = self.stack.up(databases=("orders",), progress=tell)
            return
        # Nothing is started, and so nothing of it is ever stopped or measured.
        self.public = {"started_at": None, "download_s": 0.0, "parts": {}}
        (self.stack.folder / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
        tell(f"stack: brokers {self.settings.need_brokers()}, Kafka Connect {self.settings.connect().url}")

    def load_catalogue(self) -> None:
        """The inventory's tables, filled where they are empty."""
        with psycopg.connect(self.inventory_url, autocommit=True) as connection:
            catalogue.create_schema(connection)
            self.fresh = not sum(catalogue.count(connection).values())
            rows = catalogue.generate(self._options.instances, self._options.seed)
            counts = catalogue.load(connection, rows)
        text = ", ".join(f"{count} {table}" for table, count in counts.items())
        tell(f"catalogue {'loaded' if self.fresh else 'is there already, the load adds to it'}: {text}")

    def place_orders(self) -> None:
        """Purchase order lines for some items, so that the consumer has something to keep current."""
        with psycopg.connect(self.inventory_url) as connection:
            rows = connection.execute("SELECT id FROM public.item ORDER BY hrid DESC LIMIT %s", (_ORDERED_ITEMS,))
            items = [row[0] for row in rows]
        with psycopg.connect(self.orders_url, autocommit=True) as connection:
            create_tables(connection)
            place_order(connection, items)
        tell(f"{len(items)} purchase order lines placed")

    def apply_source(self) -> None:
        """Publication, connector and topics of the inventory."""
        tell("source inventory is applied")
        self.command("sources", "apply")

    def start_companions(self) -> None:
        """The worker and the orders service's consumer."""
        foreign = self._options.stack is not None
        for name, program in (("worker", _WORKER), ("consumer", _CONSUMER)):
            project = str(self._options.roles.get(name, self._options.project))
            # What references to secrets lead to may be anywhere in the environment.
            environment = {**(os.environ if foreign else {}), "ROWCAST_PROJECT": project, "PYTHONPATH": str(REPOSITORY)}
            arguments = [project if each == _PROJECT else each for each in program]
            started = self.companions.ensure(name, arguments, environment)
            tell(f"{name} {'starts' if started else 'runs already'}, log {self.companions.log(name)}")

    def command(self, *verbs: str) -> subprocess.CompletedProcess[str]:
        """
        Run a verb of `rowcast` on this project.

        Raises:
            PipelineError: its exit code is 2, or it takes too long.

        """
        arguments = [sys.executable, "-m", "rowcast.cli.main", "--project", str(self._options.project), *verbs]
        try:
            done = subprocess.run(arguments, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise PipelineError(f"rowcast {' '.join(verbs)} took more than {_COMMAND_TIMEOUT_S:.0f} s") from error
        if done.returncode not in {0, 1}:
            raise PipelineError(f"rowcast {' '.join(verbs)} failed:\n{done.stdout}{done.stderr}")
        return done

    def refused(self) -> int:
        """How many aggregates are refused, as `rowcast refused list` tells."""
        return len(json.loads(self.command("refused", "list", SOURCE, "--json").stdout))

    def processes(self) -> dict[str, RunningProcess]:
        """All processes whose memory counts, by name; servers that this run did not start are not among them."""
        parts = self.public["parts"]
        servers = {name: RunningProcess(each["pid"], each["started_at"]) for name, each in parts.items()}
        return {**servers, **{name: self.companions.processes[name] for name in COMPANIONS}}

    def stop(self, *, all_of_it: bool) -> None:
        """Stop everything, or with *all_of_it* false only what this run started."""
        names = [name for name in reversed(COMPANIONS) if all_of_it or name in self.companions.started]
        for name in self.companions.stop(names):
            tell(f"{name} stopped")
        if self._options.stack is None and (all_of_it or self.started_stack):
            self.stack.down(progress=tell)


def bring_declarations(project: Path) -> None:
    """
    Give a project folder other than the repository a copy of the demo's source file and contracts.

    Raises:
        ConfigurationError: there is no such folder.

    """
    if not project.is_dir():
        raise ConfigurationError("no such folder", where=str(project), fix="create it")
    for name in ("connectors", "schemas"):
        if not (project / name).exists():
            shutil.copytree(REPOSITORY / name, project / name)
