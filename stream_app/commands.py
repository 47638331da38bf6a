"""
What operators ask of the owner of a source: to send again, to try again, to apply what a resync has read.

Commands wait in the control database, and are executed between two batches, so none meets half a batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rowcast.failpoint import failpoint
from rowcast.identity import tenant_of
from stream_app.core.emission import Emitted
from stream_app.core.heartbeat import forget_catalogue, forget_tables, forget_tenants
from stream_app.core.reference import referring
from stream_app.core.sequencing import emit_pending
from stream_app.core.state import Emptied, Key, View
from stream_app.drift import SUPERSEDED, Drift, as_transaction
from stream_app.folding import Folding
from stream_app.step import Step

log = logging.getLogger("rowcast.worker")
_INTERVAL_S = 1.0


class Commands:
    """
    The commands of one source.

    *applied* is the revision of the definition that is used; *reopen* reads the change log from the position on.
    """

    def __init__(self, folding: Folding, drift: Drift, applied: str, reopen: Callable[[], None]) -> None:
        self._folding = folding
        self._drift = drift
        self._applied = applied
        self._reopen = reopen
        self._due_s = 0.0

    def run(self) -> None:
        """Execute what is open; at most once a second."""
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + _INTERVAL_S
        folding = self._folding
        unread = folding.generations.comparing and not self._drift.is_read()
        commands = folding.noted.commands()
        if unread and all(verb != "resync_apply" for _, verb, _ in commands):
            # Who asked for it has died: what it waits for would be kept for ever.
            folding.generations.cancel_comparing()
            folding.land_alone(View(), Emitted(), Step(), folding.position)
        for number, verb, arguments in commands:
            if folding.tail and verb in ("retry", "resend", "resync_apply"):
                # Row state is behind what a former claim published: it would go out as if it were newer.
                continue
            if verb == "resend":
                self._resend(number, arguments["aggregates"], arguments["ids"])
            elif verb == "resync_apply" and self._can_apply(arguments):
                # Before that the log has older changes than what was read.
                if folding.position.commit_lsn >= arguments["behind"]:
                    self._resync(number, arguments["generation"], arguments.get("lifts") or {})
            else:
                self._execute(number, verb, arguments)

    def _execute(self, number: int, verb: str, arguments: Mapping[str, Any]) -> None:
        """Execute a command in one step."""
        folding = self._folding
        view, emitted = View(), folding.emitted()
        done = folding.position
        if verb == "retry":
            outcome = self._retry(Key(arguments["aggregate"], arguments["id_text"]), view, emitted)
        elif verb == "resync_begin":
            outcome = self._begin_comparing(arguments["aggregates"])
        elif verb == "resync_apply":
            outcome = SUPERSEDED
        elif verb == "skip_snapshot":
            outcome, offset = self._skip_snapshot(int(arguments["next_offset"]))
            done = replace(done, next_offset=offset, heartbeat=forget_catalogue(done.heartbeat))
        else:
            outcome = f"unknown verb {verb!r}"
        moved = done.next_offset != folding.position.next_offset
        folding.land_alone(view, emitted, Step(commands_done=[(number, outcome)]), done)
        if moved:
            self._reopen()

    def _resend(self, number: int, aggregates: Sequence[str], ids: Sequence[str]) -> None:
        """
        Send what is published of whole types, or of the *ids* of one, again; the outcome stands behind the last event.

        Unknown ids and types were refused by whoever asked.
        """
        folding = self._folding
        known = [each for each in aggregates if each in folding.mapping.by_type and each not in folding.halted]
        step = Step()
        if ids:
            step.pending = [Key(each, id_text) for each in known for id_text in ids]
        else:
            step.pending_types = known
        origin = folding.idle_origin(snapshot=True, resend=True)
        sub_position = {**origin.to_dict(), "command": number}
        halted = [each for each in aggregates if each in folding.halted]
        halted += [f"tenant {each}" for each in sorted(folding.halted.tenants)]
        if halted:
            sub_position["outcome"] = f"not sent: {', '.join(halted)}, halted; see `rowcast sources status`"
        folding.land(View(), Emitted(), step, replace(folding.position, sub_position=sub_position))
        folding.emit_pending()

    def _retry(self, key: Key, view: View, emitted: Emitted) -> str:
        folding = self._folding
        if key.aggregate not in folding.mapping.by_type:
            return f"unknown aggregate type {key.aggregate!r}"
        if key.aggregate in folding.halted:
            return f"still refused: {folding.halted.why(key.aggregate).told()}"
        tenant = tenant_of(key.id_text)
        if tenant in folding.halted.tenants:
            return f"still refused: {folding.halted.why_tenant(tenant).told()}"
        out = (emitted, folding.tail)
        folding.fold(emit_pending(folding.mapping, view, [key], folding.idle_origin(), out), view)
        refusal = view.state(key).refusal
        return "still refused: " + refusal.reason if refusal else "accepted"

    def _skip_snapshot(self, next_offset: int) -> tuple[str, int]:
        """
        Leave an interrupted snapshot behind.

        Whoever asks has dropped the slot: everything before *next_offset*, rows and stream, is read anew by the
        snapshot that follows.
        """
        self._folding.generations.abandon()
        return "skipped", max(next_offset, self._folding.position.next_offset)

    def _begin_comparing(self, aggregates: Sequence[str]) -> str:
        number = self._folding.generations.begin_comparing(aggregates)
        return "a snapshot is to be read first" if number is None else f"generation {number}"

    def _can_apply(self, arguments: Mapping[str, Any]) -> bool:
        """Whether what was read still is what the generation that compares waits for."""
        awaited = self._folding.generations.comparing, self._applied
        return awaited == (arguments["generation"], arguments["revision"])

    def _resync(self, number: int, generation: int, lifts: Mapping[str, Any]) -> None:
        """
        Make row state as a resync has read the database, and send what that changes.

        *lifts*: the halted types and tenants whose tables were read whole, and what the catalogue told of these then.
        """
        folding = self._folding
        folding.generations.begin_applying(generation)
        sub_position = folding.idle_origin(snapshot=True).to_dict()
        done = {"generation": generation, "differed": 0, "gone": 0, "lifts": lifts.get("types", [])}
        done["tenants"] = lifts.get("tenants", [])
        sub_position |= {"command": number, "resync": done}
        heartbeat = folding.position.heartbeat
        if done["lifts"] and heartbeat is not None:
            heartbeat = forget_tables(heartbeat, folding.halted.feeding(done["lifts"]), lifts["told"])
        names = folding.mapping.tenant_tables
        if done["tenants"] and heartbeat is not None and names is not None:
            heartbeat = forget_tenants(heartbeat, names, done["tenants"], lifts["told"])
        position = replace(folding.position, sub_position=sub_position, heartbeat=heartbeat)
        folding.land(View(), Emitted(), Step(), position)
        self.apply_drift()

    def apply_drift(self) -> None:
        """
        Fold what a resync found different chunk by chunk, then emit.

        What a former claim applied of it is marked, so it is not found again.
        """
        folding = self._folding
        sub_position = dict(folding.position.sub_position or {})
        done = sub_position.pop("resync")
        after: tuple[str, str] | None = ("", "")
        folding.wait()
        while after is not None:
            folding.interrupt()
            rows, after = self._drift.rows(done["generation"], after, folding.chunk_max)
            if not rows:
                continue
            gone = sum(row.found is None for row in rows)
            done = {**done, "differed": done["differed"] + len(rows) - gone, "gone": done["gone"] + gone, "last": after}
            part = as_transaction(rows, folding.position.commit_lsn)
            step = Step(
                generation=folding.generations.number,
                pending_touched=True,
                pending_children=True,
                pending_referring=referring(folding.mapping.references, part.rows),
            )
            position = replace(folding.position, sub_position={**sub_position, "resync": done})
            folding.fold_and_land([part], frozenset(folding.mapping.by_type), step, position)
            folding.wait()
            failpoint("sequencer.in_resync")
        sub_position["outcome"] = f"{done['differed']} rows differed, {done['gone']} were gone"
        # What was published of them is brought up to date, whether a resync or the stream has changed their rows.
        step = Step(pending_types=folding.halted.lift(done.get("lifts", ())))
        tenants = done.get("tenants", ())
        step.pending_tenants = [Emptied(each, tenant) for tenant in tenants for each in folding.mapping.by_type]
        folding.halted.lift_tenants(tenants)
        folding.land(View(), Emitted(), step, replace(folding.position, sub_position=sub_position))
        for each in step.pending_types:
            log.info("source %s: aggregate type %s goes on", folding.source, each)
        for each in tenants:
            log.info("source %s: tenant %s goes on", folding.source, each)
        folding.metrics.halted(folding.halted.places)
        folding.emit_pending()
