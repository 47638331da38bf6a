"""
What Faust does for a worker, and what of it is left out: Kafka clients, folders, a banner and its own log lines.

Faust's errors are logged; that its services start and stop is no news.
"""

from __future__ import annotations

import socket
from typing import Any

import faust
from faust.app.base import BootStrategy

from stream_app.web import ListeningWeb

# Faust merges it into its own set-up. A service logs under its module's name; our own lines are rowcast.worker's.
LOGGING = {"merge": True, "loggers": {name: {"level": "WARNING"} for name in ("faust", "mode", "stream_app")}}


class _WithoutKafka(BootStrategy):
    enable_kafka = False
    enable_kafka_consumer = False
    enable_kafka_producer = False


class Application(faust.App):
    """A Faust application that reads no topic, writes no file, and serves its pages on *listener*."""

    BootStrategy = _WithoutKafka

    def __init__(self, listener: socket.socket, **options: Any) -> None:
        self._listener = listener
        super().__init__("rowcast", Worker=QuietWorker, logging_config=LOGGING, **options)

    def _new_web(self) -> ListeningWeb:
        return ListeningWeb(self, self._listener)

    def _create_directories(self) -> None:
        """Nothing would ever be written there."""


class QuietWorker(faust.Worker):
    """The process, without the animation that Faust shows while it starts."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.spinner = None
