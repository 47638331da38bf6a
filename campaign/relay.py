"""Rounds one after another: while one is judged, the next one is prepared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import requests
from confluent_kafka import KafkaException

from campaign.errors import NoVerdictError
from campaign.round import Round, RoundResult
from campaign.round_plan import RoundPlan
from campaign.stand import Stand
from rowcast.errors import RowcastError

NO_VERDICT = (NoVerdictError, RowcastError, psycopg.Error, KafkaException, requests.RequestException, OSError)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the round of *seed*: its *result*, or the *error* for which there is no verdict."""

    seed: int
    result: RoundResult | None = None
    error: Exception | None = None


class Relay:
    """
    Rounds on *stand*, with their files below *folder*. A round's seconds are those since the verdict before it.

    `close` gives up what is under way.
    """

    def __init__(self, stand: Stand, folder: Path) -> None:
        self._stand, self._folder = stand, folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="conclusion")
        self._current: Round | None = None
        self._judged: tuple[Round, Future[Outcome]] | None = None
        self._verdict_s = time.monotonic()

    def outcomes(self, take: Callable[[], RoundPlan | None]) -> Iterator[Outcome]:
        """The outcome of each round that *take* gives, until it gives none when all others are known."""
        while True:
            plan = take()
            if self._judged is not None and (plan is None or self._switches(plan)):
                yield self._former()
                plan = plan or take()
            if plan is None:
                return
            current = self._current = Round(plan, self._stand, self._folder)
            error = self._tried(current.prepare)
            if self._judged is not None:
                yield self._former()
            error = error or self._tried(current.drive)
            self._current = None
            if error is None:
                self._judged = current, self._pool.submit(self._conclude, current)
            else:
                yield Outcome(plan.seed, error=error)

    def __str__(self) -> str:
        """Where the rounds stand that are under way."""
        judged = None if self._judged is None else self._judged[0]
        return "; ".join(str(each) for each in (judged, self._current) if each is not None)

    def close(self) -> None:
        """Leave nothing under way."""
        if self._judged is not None:
            round_, outcome = self._judged
            round_.give_up()
            with suppress(Exception):  # nobody asks for its outcome any more
                outcome.result()
        self._pool.shutdown()
        if self._current is not None:
            self._current.give_up()
            self._current.drop()

    def _switches(self, plan: RoundPlan) -> bool:
        """Whether Connect has to be restarted for *plan*."""
        assert self._judged is not None, "asked about the round before"
        return self._judged[0].plan.exactly_once != plan.exactly_once

    def _former(self) -> Outcome:
        """The outcome of the round that is judged, when it is known."""
        assert self._judged is not None, "asked about the round before"
        outcome = self._judged[1].result()
        self._judged = None
        return outcome

    def _tried(self, step: Callable[[], None]) -> Exception | None:
        try:
            step()
        except NO_VERDICT as error:
            self._verdict_s = time.monotonic()
            return error
        return None

    def _conclude(self, round_: Round) -> Outcome:
        try:
            result = round_.conclude()
        except NO_VERDICT as error:
            return Outcome(round_.plan.seed, error=error)
        finally:
            now_s = time.monotonic()
            seconds, self._verdict_s = now_s - self._verdict_s, now_s
        result.seconds = seconds
        return Outcome(round_.plan.seed, result)
