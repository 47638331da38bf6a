"""The documented forms of types."""

from __future__ import annotations

from type_forms import PAGE, ROWS, table


def test_the_table_of_types_is_the_one_that_the_tests_try() -> None:
    """`python tests/type_forms.py` writes it; whoever changes a form changes what is published."""
    assert table() in PAGE.read_text()


def test_every_type_has_a_value() -> None:
    """No row of the table goes untried."""
    assert [row.types for row in ROWS if not row.values] == []
