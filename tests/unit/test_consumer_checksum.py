"""The checksum of record batches is computed in C, and finds what the one in Python finds."""

from __future__ import annotations

import time

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.record import default_records
from kafka.record._crc32c import crc
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from rowcast.consumer.checksum import use_compiled_checksum


def a_batch(records: int) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, 0, True, 1, 1, 0, 1 << 24)
    for offset in range(records):
        builder.append(offset, 1_700_000_000_000, b"key", b"value" * 20, [])
    return bytearray(builder.build())


@given(st.binary(max_size=300))
def test_the_sum_is_the_same(data: bytes) -> None:
    """For any bytes, as a view of a buffer that may be written."""
    use_compiled_checksum()

    assert default_records.calc_crc32c(memoryview(bytearray(data))) == crc(data)


@pytest.mark.parametrize("place", [70, -1])
def test_a_flipped_bit_is_found(place: int) -> None:
    """A record batch whose bytes are not what the broker stored is refused by kafka-python."""
    use_compiled_checksum()
    good, bad = a_batch(10), a_batch(10)
    bad[place] ^= 1

    assert DefaultRecordBatch(good).validate_crc()
    assert not DefaultRecordBatch(bad).validate_crc()


def test_kafka_python_still_asks_where_the_sum_is_put() -> None:
    """A megabyte takes a moment, not the tenth of a second of a loop in Python; a new kafka-python may move it."""
    assert google_crc32c.implementation == "c"
    use_compiled_checksum()
    batch = DefaultRecordBatch(a_batch(8000))
    began_s = time.process_time()

    assert batch.validate_crc()
    assert time.process_time() - began_s < 0.02
