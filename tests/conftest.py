"""Fixtures of all tests."""

from __future__ import annotations

import pytest
from consumer_fixture import broker, consumers, service
from guarantees import GuaranteeCount
from program_fixture import reachable, second_copy
from stack_fixture import project, stack
from worker_fixture import workers

__all__ = ["broker", "consumers", "project", "reachable", "second_copy", "service", "stack", "workers"]


def pytest_configure(config: pytest.Config) -> None:
    """Count the tests behind each guarantee."""
    config.pluginmanager.register(GuaranteeCount(), "guarantees")
