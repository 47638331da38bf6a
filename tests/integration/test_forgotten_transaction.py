"""What brokers forget that died while they ended a transaction of the worker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.partitioner.default import murmur2
from stack_fixture import TestProject, wait_until
from worker_fixture import WorkerPool, add_tree, histories, read_events, wait_agreement

from rowcast.event import EventKind, Record
from rowcast.sources.connector import transactional_id

_VERIFICATION = "transaction.partition.verification.enable"


@contextmanager
def unverified(project: TestProject) -> Iterator[None]:
    """The brokers take records of a transaction that its coordinator does not know."""
    broker = ConfigResourceType.BROKER
    with KafkaAdminClient(bootstrap_servers=project.stack.brokers) as admin:
        admin.alter_configs([ConfigResource(broker, "1", {_VERIFICATION: "false"})])
        try:
            yield
        finally:
            admin.alter_configs([ConfigResource(broker, "1", {_VERIFICATION: "true"})])


def leave_open(project: TestProject, record: Record) -> None:
    """Append *record* as the source's producer does, in a transaction that nobody knows afterwards."""
    producer = KafkaProducer(
        bootstrap_servers=project.stack.brokers, transactional_id=transactional_id(project.name), acks="all"
    )
    producer.init_transactions()
    producer.begin_transaction()
    number = (murmur2(record.key) & 0x7FFFFFFF) % 3
    # Its coordinator is not told of the partition, so that it will not mark it.
    producer._transaction_manager._partitions_in_transaction.add(TopicPartition(record.topic, number))
    sent = producer.send(record.topic, record.value, record.key, list(record.headers), partition=number)
    sent.get(timeout=10)
    producer.close(timeout=0)


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.guarantee("Any instance may die")
def test_a_transaction_that_the_brokers_forgot_is_ended_by_the_next_claim(
    project: TestProject, workers: WorkerPool
) -> None:
    """What it published counts, and nothing stands still behind it."""
    project.apply()
    worker = workers.start()
    worker.wait_owned()
    ids = [str(uuid.uuid4()) for _ in range(3)]
    add_tree(project.connection, ids)
    wait_until(lambda: len(read_events(project)) == 3, "the first events", 40)
    worker.process.terminate()
    worker.wait_ended()
    (item,) = (event for event in read_events(project) if event.identity.aggregate == "item")
    assert item.after is not None
    told = replace(item, version=2, kind=EventKind.UPDATED, after={**item.after, "status": "Gone"}, before={})
    with unverified(project):
        leave_open(project, told.encode())
    assert len(read_events(project)) == 3  # nobody can read it

    workers.start()
    project.execute("UPDATE item SET status = 'Lent' WHERE id = %s", ids[2])
    wait_until(lambda: len(histories(project)[item.identity.text]) >= 3, "what was told, and what is the case", 40)
    assert [event.after and event.after["status"] for event in histories(project)[item.identity.text]][:2] == [
        "Available",
        "Gone",
    ]
    wait_agreement(project)
