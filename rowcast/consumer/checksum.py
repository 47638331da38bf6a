"""
The checksum of Kafka's record batches, computed in C.

kafka-python itself knows only the package crc32c (LGPL), and without it a loop in Python over every byte: 70 ns each,
which was more than half of what an event cost a consumer.
"""

from __future__ import annotations

import google_crc32c
from kafka.record import default_records


def use_compiled_checksum() -> None:
    """From now on kafka-python checks record batches with google-crc32c, in this whole process; the sum is the same."""
    if google_crc32c.implementation == "c" and hasattr(default_records, "calc_crc32c"):
        default_records.calc_crc32c = _crc32c


def _crc32c(data: memoryview) -> int:
    return int(google_crc32c.value(bytes(data)))
