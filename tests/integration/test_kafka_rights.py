"""The least rights in Kafka: what `plan --acl` prints is enough for each role, and nothing of it is too much."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import AclBinding
from consumer_fixture import Service, make_event, note, running
from secured_kafka import PASSWORD, SecuredKafka
from stack_fixture import wait_until

from rowcast.brokers import Brokers
from rowcast.consumer import Consumer
from rowcast.errors import BrokerUnavailableError, ConfigurationError, RowcastError
from rowcast.event import Record
from rowcast.event_log import EventLog
from rowcast.settings import load_settings
from rowcast.sources.access import accesses, script_lines
from rowcast.sources.capture import change_log_end
from rowcast.sources.source_file import load_sources
from rowcast.sources.topic_plan import Topic, TopicAdmin
from rowcast.topics import PROGRESS_TOPIC
from stream_app.publisher import Publisher
from stream_app.transport import ChangeLogReader, read_extent, read_tail

REPOSITORY = Path(__file__).resolve().parents[2]
TOPICS = ("shop.changes", "shop.item.v1", PROGRESS_TOPIC)
SOURCE = "source: shop\ndatabase: shop\naggregates:\n  item: {table: public.item, id: id, contract: v1.0}\n"
TOML = """
[acl.consumers]
orders = {principal = "User:orders", events = ["shop.item.v1"]}
"""


@dataclass(frozen=True, slots=True)
class Rights:
    """The rights that `plan --acl` prints for a source with one aggregate, all of them given."""

    kafka: SecuredKafka
    service: Service
    given: list[AclBinding]

    def brokers(self, user: str) -> Brokers:
        """Kafka as *user* reaches it."""
        security = {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": user,
            "sasl_plain_password": PASSWORD,
            "ssl_cafile": str(self.kafka.ca),
        }
        return Brokers(self.kafka.brokers, security)

    def apply(self) -> None:
        """What `rowcast sources apply`, `status` and `events` ask of Kafka."""
        kafka = self.brokers("rowcast")
        with TopicAdmin(kafka) as admin:
            assert len(admin.present(TOPICS)) == len(TOPICS)
            admin.refuse_uncreatable([Topic(name, 1, 1, {}) for name in TOPICS])
            for name in TOPICS:
                admin.alter(name, {"retention.ms": "3600000"})
        change_log_end(kafka, "shop")
        log = EventLog(kafka)
        span = log.span(log.partitions("shop.item"), None, None)
        assert log.last(span, 1, lambda _event: True)

    def work(self) -> None:
        """What a worker asks of Kafka."""
        kafka = self.brokers("rowcast-worker")
        publisher = Publisher(kafka, "shop")
        try:
            event = make_event("shop", "1", 1).encode()
            publisher.publish([event])
            publisher.publish([Record(PROGRESS_TOPIC, b"shop", b"{}", ())])
        finally:
            publisher.close()
        assert read_extent(kafka, "shop.changes").end > 0
        reader = ChangeLogReader(kafka, "shop", "shop.changes", 0)
        try:
            assert reader.read(1, 20, lambda: False)
        finally:
            reader.close()
        assert read_tail(kafka, "shop", {"shop.item.v1": {"0": 0}})

    def consume(self) -> None:
        """What a consumer asks of Kafka."""
        self.service.execute("DROP SCHEMA IF EXISTS rowcast_inbox CASCADE")
        self.service.execute("TRUNCATE effect")
        kafka = self.brokers("orders")
        consumer = Consumer("orders", self.service.url, kafka.servers, security=dict(kafka.security))
        consumer.on("shop.item", major=1)(note)
        with running(consumer) as run:
            wait_until(lambda: run.error is not None or self.service.effect_count() > 0, "an effect or an error", 20)
            if run.error is not None:
                raise run.error


@pytest.fixture
def rights(secured_kafka: SecuredKafka, service: Service, tmp_path: Path) -> Iterator[Rights]:
    """A source that exists in Kafka alone, with exactly the rights that are printed for it."""
    (tmp_path / "connectors").mkdir()
    (tmp_path / "connectors/shop.yaml").write_text(SOURCE)
    (tmp_path / "rowcast.toml").write_text(TOML)
    target = tmp_path / "schemas/shop/item"
    shutil.copytree(REPOSITORY / "schemas/inventory/item", target)
    for path in target.glob("*.json"):
        text = path.read_text().replace("schema:inventory.", "schema:shop.")
        path.write_text(text)
    found = accesses(load_sources(tmp_path), load_settings(tmp_path, {}))
    given = secured_kafka.allow(script_lines(found, secured_kafka.brokers))
    made = Rights(secured_kafka, service, given)
    with TopicAdmin(Brokers(secured_kafka.inner)) as admin:
        created = [name for name in TOPICS if name not in admin.present(TOPICS)]
        for name in created:
            admin.create(Topic(name, 1, 1, {}))
    publisher = Publisher(Brokers(secured_kafka.inner), "other")
    publisher.publish([Record("shop.changes", b"1", b"{}", ()), make_event("shop", "1", 1).encode()])
    publisher.close()
    try:
        yield made
    finally:
        secured_kafka.forbid(*given)
        with TopicAdmin(Brokers(secured_kafka.inner)) as admin:
            admin.delete(created)


def refusal(action: Callable[[], None]) -> str:
    """What *action* is refused with; empty when it is not."""
    try:
        action()
    except (BrokerUnavailableError, ConfigurationError) as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_right_is_needed_and_its_lack_is_named(rights: Rights) -> None:
    """With all of them each role works; without one it says who may not do what, and what gives the right."""
    roles = {"User:rowcast": rights.apply, "User:rowcast-worker": rights.work, "User:orders": rights.consume}
    for principal, action in roles.items():
        wait_until(lambda action=action: refusal(action) == "", f"{principal} works", 30)
    for binding in rights.given:
        if binding.principal not in roles:
            continue  # Kafka Connect's are tried with Kafka Connect
        action = roles[binding.principal]
        rights.kafka.forbid(binding)
        told = wait_until(lambda action=action: refusal(action), f"without {binding}", 30)
        assert f"Kafka does not let {binding.principal} use" in told, (binding, told)
        assert binding.name in told, (binding, told)
        assert "rowcast sources plan --acl" in told
        assert PASSWORD not in told
        rights.kafka.restore(binding)
    for principal, action in roles.items():
        wait_until(lambda action=action: refusal(action) == "", f"{principal} works again", 30)


def test_principals_and_names_come_from_the_settings(tmp_path: Path) -> None:
    """As people call them; nothing is asked of Kafka."""
    for name in ("connectors", "schemas", "consumers"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    text = 'brokers = "b:1"\n[acl]\nworker = "User:CN=worker,O=a b"\nconnect_group = "g"\n'
    text += 'connect_topics = ["c", "o", "s"]\n'
    (tmp_path / "rowcast.toml").write_text(text)
    found = accesses(load_sources(tmp_path), load_settings(tmp_path, {}))
    by_principal: dict[str, set[str]] = {}
    for access in found:
        by_principal.setdefault(access.principal, set()).update(access.names)
    assert by_principal["User:connect"] == {
        *("c", "o", "s", "g", "inventory.changes", "connect-cluster-g", "g-rowcast-inventory-0"),
    }
    assert by_principal["User:CN=worker,O=a b"] >= {"rowcast-inventory", "rowcast.inventory", "rowcast.progress"}
    topics = {"inventory.instance.v1", "inventory.holdings.v1", "inventory.item.v1"}
    assert by_principal["User:orders"] == {"orders", *topics}
    assert any("'User:CN=worker,O=a b'" in line for line in script_lines(found, "b:1"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('worker = "nobody"', "acl.worker: not a principal"),
        ("connect_topics = []", "acl.connect_topics: not a list of texts"),
        ('owner = "User:a"', "unknown name 'owner'"),
        ("consumers.a = {events = []}", "acl.consumers.a: needs a principal"),
        ('consumers.a = "User:a"', "acl.consumers.a: it is not known what it reads"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """The message names the key."""
    for name in ("connectors", "schemas"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    (tmp_path / "rowcast.toml").write_text(f"[acl]\n{text}\n")
    with pytest.raises(RowcastError) as refused:
        accesses(load_sources(tmp_path), load_settings(tmp_path, {}))
    assert message in str(refused.value)
