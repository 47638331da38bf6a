from __future__ import annotations

import pytest

from rowcast.control.names import encoded_id


@pytest.mark.parametrize(
    ("typed", "columns", "encoded"),
    [
        ("2,V/1, x", 2, "2,V%2F1%2C%20x"),
        ("2,V%2F1%2C%20x", 2, "2,V%2F1%2C%20x"),
        ("V/1, x", 1, "V%2F1%2C%20x"),
        ("77", 1, "77"),
        ("", 1, "~"),
        ("77", 2, None),
    ],
)
def test_an_id_as_it_stands_in_the_row_has_one_encoded_form(typed: str, columns: int, encoded: str | None) -> None:
    """Whoever types the columns with commas between them is told what to type."""
    assert encoded_id(typed, columns) == encoded
