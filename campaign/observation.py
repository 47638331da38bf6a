"""What is read from outside: the consumer's own tables, now and then and in the end, and the progress topic."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import orjson
import psycopg

from campaign.evidence import Claim, Effect, Held, Sample
from examples.main_job.topics_reader import TopicsReader
from rowcast.topics import PROGRESS_TOPIC

_EVERY_S = 0.7
_DIAL_S = 0.3
_READ_TIMEOUT_S = 60.0
_ISOLATED = "-c default_transaction_isolation=repeatable\\ read"


class Sampler:
    """Looks at the consumer's tables at *url* again and again while it is entered; an outage is a pause."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[Sample] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """End."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(20)

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                with connect(self._url) as connection:
                    while not self._ending.is_set():
                        self.samples.append(take_sample(connection))
                        self._ending.wait(_EVERY_S)
            except psycopg.OperationalError:
                self._ending.wait(_DIAL_S)


def connect(url: str) -> psycopg.Connection[Any]:
    """A connection of which each transaction sees one instant."""
    return psycopg.connect(url, connect_timeout=5, options=_ISOLATED)


def take_sample(connection: psycopg.Connection[Any]) -> Sample:
    """The consumer's tables at this instant."""
    with connection.transaction():
        at = time.time()
        rows = connection.execute("SELECT aggregate, id_text, version, after, ancestors FROM mirror").fetchall()
    held = {(row[0], row[1]): Held(row[2], orjson.loads(row[3]), orjson.loads(row[4])) for row in rows}
    return Sample(at, held)


def read_effects(connection: psycopg.Connection[Any]) -> list[Effect]:
    """Every effect, with the moment at which it was committed."""
    with connection.transaction():
        rows = connection.execute(
            "SELECT seq, aggregate, id_text, version, event_id,"
            " extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM effect ORDER BY seq"
        ).fetchall()
    return [Effect(row[0], (row[1], row[2]), row[3], row[4], row[5]) for row in rows]


def read_claims(brokers: str, source: str) -> list[Claim]:
    """What the progress topic says of *source*, from the beginning as far as it was not compacted."""
    with TopicsReader(brokers, [PROGRESS_TOPIC]) as reader:
        records = reader.read_to_end(_READ_TIMEOUT_S)
    claims = []
    for record in records:
        if record.key != source.encode() or record.value is None:
            continue
        value = orjson.loads(record.value)
        ends = {(topic, int(n)): end for topic, offsets in value["end_offsets"].items() for n, end in offsets.items()}
        heartbeat_at = datetime.fromisoformat(value["heartbeat_at"]).timestamp()
        lsn = int(value["position"])
        refused = int(value["refused"]["count"])
        halted = {each["aggregate"]: datetime.fromisoformat(each["since"]).timestamp() for each in value["halted"]}
        claims.append(Claim(int(value["epoch"]), lsn, heartbeat_at, ends, record.timestamp_ms / 1000, refused, halted))
    return claims


class EffectCount:
    """Counts the effects in the consumer's database at *url*, over one connection as long as that lasts."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[Any] | None = None

    def read(self) -> int:
        """How many effects are committed; 0 while the server cannot be asked."""
        try:
            if self._connection is None:
                self._connection = connect(self._url)
            with self._connection.transaction():
                row = self._connection.execute("SELECT count(*) FROM effect").fetchone()
        except psycopg.OperationalError:
            self.close()
            return 0
        return 0 if row is None else int(row[0])

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def change_log_values(brokers: str, change_log: str) -> list[bytes]:
    """What the connector sent. For a figure and for whoever looks into a finding, of no verdict."""
    with TopicsReader(brokers, [change_log]) as reader:
        return [record.value or b"null" for record in reader.read_to_end(_READ_TIMEOUT_S)]


def count_sent_again(values: Iterable[bytes]) -> int:
    """How many rows the change log has more than once: what the connector sent again."""
    seen = Counter[tuple[str, int]]()
    for each in values:
        value = orjson.loads(each)
        if isinstance(value, dict) and (transaction := value.get("transaction")):
            seen[transaction["id"], transaction["total_order"]] += 1
    return seen.total() - len(seen)


def domain_records(brokers: str, topics: Iterable[str]) -> list[Any]:
    """All records of the domain topics, read anew by a client of another library than the consumer's."""
    with TopicsReader(brokers, topics) as reader:
        return list(reader.read_to_end(_READ_TIMEOUT_S))
