"""Fixtures of all tests."""

from __future__ import annotations

import signal

import pytest
from consumer_fixture import broker, consumers, service
from guarantees import GuaranteeCount
from node_fixture import node_reader
from pipeline_fixture import pipeline
from program_fixture import reachable, second_copy
from proxy_fixture import proxies
from secured_kafka import secured_kafka
from secured_stack import secured_stack
from stack_fixture import project, stack
from worker_fixture import workers

__all__ = [
    "broker",
    "consumers",
    "node_reader",
    "pipeline",
    "project",
    "proxies",
    "reachable",
    "second_copy",
    "secured_kafka",
    "secured_stack",
    "service",
    "stack",
    "workers",
]


def pytest_configure(config: pytest.Config) -> None:
    """Count the tests behind each guarantee; let Ctrl-C reach what tests start."""
    if hasattr(config, "workerinput"):
        # A process that runs tests for another one ignores it, and its children would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(GuaranteeCount(), "guarantees")
