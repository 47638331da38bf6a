"""What the figures were measured on, and with which settings."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any

import psutil
import psycopg

from benchmarks.child import REPOSITORY
from benchmarks.local_web import call
from rowcast.consumer import Consumer
from rowcast.settings import Settings

_PACKAGES = ("rowcast", "faust-streaming", "confluent-kafka", "kafka-python", "psycopg", "orjson", "jsonschema-rs")
_POSTGRESQL = ["fsync", "synchronous_commit", "shared_buffers", "max_wal_size", "logical_decoding_work_mem"]
_CONNECTOR = (
    "max.batch.size",
    "max.queue.size",
    "poll.interval.ms",
    "exactly.once.support",
    "transaction.boundary",
    "producer.override.acks",
    "producer.override.compression.type",
    "producer.override.batch.size",
)


def describe_machine(stack: Settings) -> dict[str, Any]:
    """Hardware, system and the versions of all parts."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": psutil.virtual_memory().total // 2**20,
        "cpu": _cpu_model(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {**_servers(stack), **{name: version(name) for name in _PACKAGES}},
    }


def describe_settings(stack: Settings, connector: Mapping[str, str]) -> dict[str, Any]:
    """The commit, and the settings of the servers and the SDK that throughput depends on."""
    with psycopg.connect(stack.database("postgres").url) as connection:
        rows = connection.execute(
            "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)", (_POSTGRESQL,)
        )
        postgresql = {str(name): str(value) for name, value in rows}
    parameters = signature(Consumer).parameters
    return {
        "commit": commit(),
        "postgresql": postgresql,
        "connector": {name: connector[name] for name in _CONNECTOR if name in connector},
        "consumer": {name: parameters[name].default for name in ("batch_events", "batch_s")},
    }


def load_average() -> list[float]:
    """Processes that wanted to run, over 1, 5 and 15 minutes."""
    return [round(each, 2) for each in os.getloadavg()]


def commit() -> str | None:
    """The checked-out commit, with `-dirty` where files differ from it; None outside a checkout."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _servers(stack: Settings) -> dict[str, str]:
    with psycopg.connect(stack.database("postgres").url) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    url = stack.need_connect_url()
    plugins = call(f"{url}/connector-plugins").json()
    debezium = [each["version"] for each in plugins if each["class"].endswith("PostgresConnector")]
    return {
        "postgresql": str(row[0]) if row else "unknown",
        "kafka": call(url).json()["version"],
        "debezium": debezium[0] if debezium else "unknown",
    }
