"""What the commands for sources say: counts, parts that are not known, and services that do not answer."""

from __future__ import annotations

import socket
import threading
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rowcast.cli.count import counted
from rowcast.cli.status_lines import status_lines
from rowcast.connect import ConnectClient
from rowcast.errors import ConnectUnavailableError
from rowcast.settings import Settings
from rowcast.sources.health import Position, SourceStatus
from rowcast.sources.source_file import load_source
from rowcast.sources.status import read_statuses

RUNNING: Mapping[str, Any] = {
    "status": "running",
    "stopped_code": None,
    "stopped_detail": None,
    "stopped_remedy": None,
    "epoch": 3,
    "holder": "w1",
    "held": True,
    "next_offset": 7,
    "commit_lsn": 1,
    "age_s": 0.5,
    "refused": 0,
    "heartbeat": None,
}


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def worker_line(**changes: object) -> str:
    status = SourceStatus(source="shop", position=Position(**{**RUNNING, **changes}))
    return next(line for line in status_lines(status) if line.startswith("  worker"))


@pytest.mark.parametrize(("number", "text"), [(0, "0 changes"), (1, "1 change"), (2, "2 changes")])
def test_one_is_no_plural(number: int, text: str) -> None:
    """Counts are told as one says them."""
    assert counted(number, "change") == text


def test_what_is_not_known_has_no_line() -> None:
    """A change log or heartbeat that could not be asked is not told as None records, or as none."""
    text = "\n".join(status_lines(SourceStatus(source="shop")))
    assert text == "shop: healthy"
    assert "1 record in front" in "\n".join(status_lines(SourceStatus(source="shop", lag_records=1)))


def test_the_worker_s_line_says_whether_one_works() -> None:
    """A source that nobody owns is not called running."""
    assert worker_line() == "  worker     running, owned by w1, epoch 3, next offset 7, moved 0.5 s ago, 0 refused"
    nobody = worker_line(held=False, holder=None, next_offset=None, age_s=None)
    assert nobody == "  worker     none owns the source, epoch 3, nothing read yet, 0 refused"
    assert worker_line(held=False, status="stopped").startswith("  worker     stopped, none owns the source, ")


def test_connect_that_does_not_listen_is_told_in_plain_words() -> None:
    """The operating system's word stands behind the address, and nothing of the client's."""
    url = f"http://127.0.0.1:{closed_port()}"
    with ConnectClient(url) as client, pytest.raises(ConnectUnavailableError) as refused:
        client.status("shop")
    assert str(refused.value) == f"Kafka Connect at {url} does not answer: connection refused"


def test_a_login_at_connect_is_sent_and_never_shown() -> None:
    """Name and password of the address are sent as HTTP has it; neither address nor message has them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        heard: list[bytes] = []

        def answer() -> None:
            connection, _peer = server.accept()
            with connection:
                heard.append(connection.recv(65_536))
                connection.sendall(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with ConnectClient(url.replace("//", "//ann:p%40ss%2Fw@")) as client:
            with pytest.raises(ConnectUnavailableError) as refused:
                client.status("shop")
            thread.join(10)
            server.close()
            with pytest.raises(ConnectUnavailableError) as away:
                client.status("shop")
    assert f"Authorization: Basic {b64encode(b'ann:p@ss/w').decode()}".encode() in heard[0]
    for text in (client.url, str(refused.value), str(away.value)):
        assert url in text
        assert "p@ss" not in text
        assert "p%40ss" not in text


def test_a_stack_that_is_down_is_brought_up_again(tmp_path: Path) -> None:
    """The remedy is `rowcast up` where the project has a stack of its own, and the address elsewhere."""
    path = tmp_path / "shop.yaml"
    path.write_text("source: shop\ndatabase: shop\naggregates:\n  order: {table: public.orders, id: id}\n")
    settings = Settings(tmp_path, None, None, {})
    (elsewhere,) = read_statuses([load_source(path)], settings)
    assert {problem.code for problem in elsewhere.problems} == {"UNREACHABLE"}
    assert all("rowcast.toml" in problem.remedy for problem in elsewhere.problems)
    settings.state_folder.mkdir()
    (settings.state_folder / "state.json").write_text("{}")
    (here,) = read_statuses([load_source(path)], settings)
    assert all(problem.remedy.startswith("`rowcast up`") for problem in here.problems)
