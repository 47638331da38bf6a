from __future__ import annotations

from rowcast.consumer.absence import AbsentTopics


def test_an_absent_topic_is_named_after_a_moment_and_once_a_minute() -> None:
    """A topic that appears within seconds is not named; one that stays away is named again and again."""
    absent = AbsentTopics(["b", "a"])
    assert absent.look({"b"}, 100.0) == []
    assert (absent.look({"b"}, 102.9), absent.topics) == ([], ())
    assert (absent.look({"b"}, 103.0), absent.topics) == (["a"], ("a",))
    assert (absent.look({"b"}, 162.9), absent.topics) == ([], ("a",))
    assert absent.look({"b"}, 163.0) == ["a"]


def test_a_topic_that_appears_is_not_absent_any_more_and_may_become_it_again() -> None:
    """Both are told at once but for the moment of grace."""
    absent = AbsentTopics(["a"])
    absent.look((), 0.0)
    assert absent.look((), 5.0) == ["a"]
    assert (absent.look({"a"}, 6.0), absent.topics) == ([], ())
    assert (absent.look((), 7.0), absent.topics) == ([], ())
    assert (absent.look((), 10.0), absent.topics) == (["a"], ("a",))
