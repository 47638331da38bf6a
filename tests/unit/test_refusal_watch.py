from __future__ import annotations

import pytest

from rowcast.contracts.validation import ValueValidator
from rowcast.errors import ContractViolationError, MappingError, StopError
from stream_app.core.array import converter
from stream_app.core.state import AggregateState, Key, Refusal, View
from stream_app.refusal import RefusalWatch


def view_of(*refused: str, lsn: int = 7, reason: str = '/name: <value> is not of type "string"') -> View:
    view = View()
    for id_text in refused:
        view.put(Key("customer", id_text), AggregateState(refusal=Refusal(reason, "{}", "2026-01-01T00:00:00Z", lsn)))
    view.put(Key("customer", "fine"), AggregateState(1))
    return view


class Clock:
    """Stands still until it is moved."""

    now_s = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


def test_the_stop_names_the_first_refused_aggregate_and_its_reason() -> None:
    """Whoever reads the stop sees what to mend, also when the share was passed by a later batch."""
    watch = RefusalWatch("shop", 0.5)
    watch.check(3, 2, view_of("4", "12"))
    with pytest.raises(StopError) as stopped:
        watch.check(0, 18, view_of("5", lsn=9))
    assert stopped.value.message == (
        "20 of 23 events were refused, more than the declared share 0.5;"
        ' the first is customer 12: /name: <value> is not of type "string"'
    )


def test_few_outcomes_or_a_small_share_do_not_stop_and_neither_does_a_former_interval() -> None:
    """The share counts over at most a thousand outcomes, and not over fewer than twenty."""
    watch = RefusalWatch("shop", 0.5)
    watch.check(0, 19)
    watch.check(981, 0)
    watch.check(10, 10)
    with pytest.raises(StopError):
        watch.check(0, 1)


def test_each_aggregate_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """One line with type, id and reason; a further change that is refused too is no news."""
    watch = RefusalWatch("shop", 0.5)
    watch.check(50, 1, view_of("4", reason="/name: wrong\n\nmore"))
    watch.check(50, 1, view_of("4", reason="/name: wrong\n\nmore"))
    watch.check(50, 0, view_of("4"))
    assert [record.getMessage() for record in caplog.records] == ["source shop: refused customer 4: /name: wrong more"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_many_refusals_are_no_flood(caplog: pytest.LogCaptureFixture) -> None:
    """A few are named in a second, of the rest the number is told; nothing is left out of the count."""
    clock = Clock()
    watch = RefusalWatch("shop", 1.0, clock)
    watch.check(0, 500, view_of(*map(str, range(500))))
    watch.check(0, 1, view_of("500"))
    assert len(caplog.records) == 3
    clock.now_s += 1.0
    watch.check(1, 0, View())
    watch.check(0, 1, view_of("501"))
    assert [record.getMessage().partition(": ")[2] for record in caplog.records][3:] == [
        "refused 498 more; `rowcast refused list shop` names them",
        'refused customer 501: /name: <value> is not of type "string"',
    ]


@pytest.mark.parametrize(
    "value",
    [
        {"name": "SECRET"},
        {"name": ["SECRET"]},
        {"born": "SECRET"},
        {"code": "SECRET"},
        {"map": {"a": "SECRET"}},
        {"list": ["SECRET", "SECRET"]},
        {"one": "SECRET"},
    ],
    ids=lambda value: next(iter(value)),
)
def test_no_reason_quotes_a_value(value: dict[str, object]) -> None:
    """What a contract rejects is described without it, so that log and stop hold no data of the row."""
    schema = {
        "properties": {
            "name": {"type": "string", "maxLength": 3},
            "born": {"format": "date"},
            "code": {"pattern": "^[0-9]+$"},
            "map": {"additionalProperties": {"type": "integer"}},
            "list": {"uniqueItems": True},
            "one": {"oneOf": [{"type": "integer"}, {"enum": ["a"]}]},
        }
    }
    with pytest.raises(ContractViolationError) as refused:
        ValueValidator(schema).check(value)
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize("text", ['{"SECRET', "SECRET", '["SECRET", 99999999999999999999]', "SECRET 9999999999999999"])
def test_no_reason_quotes_a_document(text: str) -> None:
    """A JSON column that cannot be carried is described without its text."""
    with pytest.raises(MappingError) as refused:
        converter("jsonb")(text)
    assert "SECRET" not in str(refused.value)
