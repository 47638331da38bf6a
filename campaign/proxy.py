"""
A TCP proxy on loopback that stands between two parts and breaks what is between them.

Each client has a proxy of its own, so that one road fails while the others hold. Kafka's clients follow the address
that the broker names, so in front of Kafka the proxy puts its own port into the broker's answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
HOST = "127.0.0.1"
UP, DOWN = "up", "down"  # from the client to the server, and back
BOTH = (UP, DOWN)
_CHUNK = 256 * 1024
_COMMIT = b"COMMIT\0"  # a statement on its way up, and the tag of its success on the way down


class _Flow:
    """One connection through the proxy. Its gates are open unless something is held."""

    def __init__(self, held: set[str]) -> None:
        self.gates = {direction: asyncio.Event() for direction in BOTH}
        for direction in BOTH:
            if direction not in held:
                self.gates[direction].set()
        self.forgotten: set[str] = set()
        self.committing = False
        self.writers: list[asyncio.StreamWriter] = []

    def reset(self) -> None:
        """End both sides with RST."""
        for writer in self.writers:
            with contextlib.suppress(OSError):
                found = writer.get_extra_info("socket")
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        for gate in self.gates.values():
            gate.set()


class Proxy:
    """A road from its own *port* to *target* on loopback. All methods are for one thread outside."""

    def __init__(self, target: int, *, kafka: bool = False) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._flows: set[_Flow] = set()
        self._held: set[str] = set()
        self._refusing = False
        self._losing = 0
        self.lost_commits = 0
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, HOST, 0, limit=_CHUNK))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._rename = self._renamed if kafka else None

    @property
    def address(self) -> str:
        """Host and port of this end."""
        return f"{HOST}:{self.port}"

    def cut(self) -> None:
        """Reset every connection; new ones go through."""
        self._do(self._reset_all)

    def refuse(self) -> None:
        """Reset every connection, and each new one, until `heal`."""

        def refuse() -> None:
            self._refusing = True
            self._reset_all()

        self._do(refuse)

    def hold(self, *directions: str) -> None:
        """Half-open: nothing passes in *directions* (default: both), not even an end, until `heal`."""

        def hold() -> None:
            self._held = set(directions or BOTH)
            for flow in self._flows:
                for direction in self._held:
                    flow.gates[direction].clear()

        self._do(hold)

    def forget(self, *directions: str) -> None:
        """
        The connections that there are stay open and never pass anything again in *directions* (default: both).

        New ones go through.
        """

        def forget() -> None:
            for flow in self._flows:
                flow.forgotten = set(directions or BOTH)
                for direction in flow.forgotten:
                    flow.gates[direction].clear()

        self._do(forget)

    def lose_answer(self, commits: int = 1) -> None:
        """Let the next COMMITs happen on the server, and reset each connection instead of passing the answer on."""

        def lose() -> None:
            self._losing = commits

        self._do(lose)

    def heal(self) -> None:
        """Everything passes again, what was held back first."""

        def heal() -> None:
            self._refusing = False
            self._held = set()
            for flow in self._flows:
                for direction in set(BOTH) - flow.forgotten:
                    flow.gates[direction].set()

        self._do(heal)

    def close(self) -> None:
        """Reset everything and give the port back."""

        async def close() -> None:
            self._server.close()
            self._reset_all()
            tasks = asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._call(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _reset_all(self) -> None:
        for flow in self._flows:
            flow.reset()

    def _do(self, action: Callable[[], None]) -> None:
        async def act() -> None:
            action()

        self._call(act())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flow = _Flow(self._held)
        flow.writers.append(writer)
        if self._refusing:
            flow.reset()
            return
        self._flows.add(flow)
        try:
            await flow.gates[UP].wait()
            server_reader, server_writer = await asyncio.open_connection(HOST, self._target, limit=_CHUNK)
            flow.writers.append(server_writer)
            await asyncio.gather(
                self._pump(flow, UP, reader, server_writer), self._pump(flow, DOWN, server_reader, writer)
            )
        except (OSError, asyncio.CancelledError):
            pass  # the server is down, one side has reset the connection, or the proxy is closed
        finally:
            self._flows.discard(flow)
            flow.reset()

    async def _pump(
        self, flow: _Flow, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        kept = b""
        try:
            while data := await reader.read(_CHUNK):
                await flow.gates[direction].wait()
                if self._loses(flow, direction, data):
                    flow.reset()
                    return
                if self._rename is not None and direction == DOWN:
                    data, kept = self._rename(kept + data)
                writer.write(data)
                await writer.drain()
        finally:
            # An end is not told either while nothing passes.
            await flow.gates[direction].wait()
            writer.close()

    def _loses(self, flow: _Flow, direction: str, data: bytes) -> bool:
        if self._losing and direction == UP and _COMMIT in data:
            self._losing -= 1
            flow.committing = True
        if not (flow.committing and direction == DOWN and _COMMIT in data):
            return False
        self.lost_commits += 1
        return True

    def _renamed(self, data: bytes) -> tuple[bytes, bytes]:
        """The whole answers at the beginning of *data*, naming this port, and the rest."""
        end = 0
        while len(data) >= end + 4 and len(data) >= (after := end + 4 + int.from_bytes(data[end : end + 4])):
            end = after
        old, new = (HOST.encode() + struct.pack(">i", port) for port in (self._target, self.port))
        return data[:end].replace(old, new), data[end:]
