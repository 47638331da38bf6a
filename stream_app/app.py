"""
The Faust application: `faust -A stream_app.app worker`, and `rowcast worker` starts the same.

Faust hosts the worker: its command line, service tree, web server and shutdown. The change logs are read by a
service of ours (see docs/design.md for why), so Faust's own consumer and producer stay off.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
import time
from pathlib import Path

import faust
from faust.web import Request, Response, View

from rowcast.errors import ConfigurationError
from rowcast.settings import Settings, load_settings
from stream_app.connector_watch import ConnectorWatch
from stream_app.hosting import Application
from stream_app.metrics import Metrics
from stream_app.reader_watch import ReaderWatch
from stream_app.slot_watch import SlotWatch
from stream_app.supervisor import TICK_S, Supervisor
from stream_app.web import HOST, open_listener, port_of

log = logging.getLogger("rowcast.worker")

# A worker whose supervisor has not come round for this long is not healthy.
_HEALTHY_S = 30.0


def build_app(settings: Settings, listener: socket.socket) -> faust.App:
    """The application for *settings*: its sequencer service, `/health` and `/metrics` on *listener*."""
    brokers, control = settings.kafka(), settings.control()
    metrics = Metrics()
    supervisor = Supervisor((brokers, control.url, settings.hash_key()), metrics)
    fault = SlotWatch(settings).fault
    watch = ConnectorWatch(settings.connect(), supervisor.silences, supervisor.stop_source, fault, metrics)
    readers = ReaderWatch(brokers, supervisor.ending, metrics)
    app = Application(
        listener,
        broker=f"kafka://{brokers}",
        web_bind=HOST,
        web_host=HOST,
        web_port=port_of(listener),
        web_router_enabled=False,
        web_tables_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        worker_redirect_stdouts=False,
    )

    @app.service
    class Sequencers(faust.Service):
        """Claims sources and works on them, in threads of their own."""

        async def on_start(self) -> None:
            log.info("health and metrics: http://%s:%d/health and /metrics", HOST, port_of(listener))
            watch.start()
            readers.start()

        @faust.Service.task
        async def _supervise(self) -> None:
            while not self.should_stop:
                await asyncio.to_thread(supervisor.tick)
                await self.sleep(TICK_S)

        async def on_stop(self) -> None:
            log.info("stopping")
            watch.stop()
            readers.stop()
            await asyncio.to_thread(supervisor.stop)

    @app.page("/metrics")
    class MetricsPage(View):
        """Prometheus text exposition."""

        async def get(self, request: Request) -> Response:
            return self.text(metrics.render().decode(), content_type="text/plain")

    @app.page("/health")
    class HealthPage(View):
        """200 while the supervisor comes round and no owned source is stopped, else 503; halted types are named."""

        async def get(self, request: Request) -> Response:
            stopped = sorted(source for source, owner in supervisor.owners.items() if owner.paused)
            late_s = time.monotonic() - supervisor.ticked_s
            healthy = not stopped and late_s < _HEALTHY_S
            halted = {source: owner.halted for source, owner in sorted(supervisor.owners.items()) if owner.halted}
            body = {
                "healthy": healthy,
                "owned": sorted(supervisor.owners),
                "stopped": stopped,
                "halted": halted,
                "late_s": late_s,
            }
            return self.json(body, status=200 if healthy else 503)

    return app


def _tune_interpreter() -> None:
    """Settings of this process that batches of many small objects and two busy threads a source ask for."""
    # What the core allocates has no cycles and goes by itself; looking for them took a third of its time.
    gc.freeze()
    gc.set_threshold(200_000, 50, 50)
    # A thread that comes back from the network waits this long for one that computes; the default is ten times that.
    sys.setswitchinterval(0.0005)


def _load() -> faust.App:
    _tune_interpreter()
    try:
        settings = load_settings(Path(os.environ.get("ROWCAST_PROJECT", ".")).resolve())
        return build_app(settings, open_listener(os.environ))
    except ConfigurationError as error:
        print(f"rowcast: {error}", file=sys.stderr)
        raise SystemExit(2) from error


app = _load()
