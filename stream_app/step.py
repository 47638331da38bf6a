"""What one commit writes besides the state that it computed."""

from __future__ import annotations

from dataclasses import dataclass, field

from rowcast.halt import Halt
from stream_app.core.reference import Referring
from stream_app.core.state import Emptied, Key
from stream_app.core.statement import RefusedStatement, Statement
from stream_app.generation import Generation


@dataclass(slots=True, kw_only=True)
class Step:
    """
    What one commit writes besides the view: see the columns of the control tables.

    *pending_types* go out whole with the chunks that follow; the position names them. Of types in *pending_tenants* the
    aggregates of one tenant wait for their event. *pending_touched*: whatever the view changed does. *pending_done*:
    what waits behind *pending_behind*, up to this, is out. *opened*: what newly live majors wait for is pending, and
    goes out with the chunks that follow. *statements* wait for their event; *placed*, LSN and time of a large
    transaction, lets those wait that were staged with it, *refused* of which are refused; *said* ends their waiting, up
    to what is not pending any more. All *refused_statements* are kept. *comparing*: the generation of a resync that is
    to know which rows were deleted meanwhile. *halted*: what halts types from now on, *lifted* the causes that do not
    any more.
    """

    generation: int = 0
    comparing: int = 0
    processed: list[tuple[int, int, int]] = field(default_factory=list)
    last_time_ms: int = 0
    generations: list[Generation] = field(default_factory=list)
    ended_generations: list[Generation] = field(default_factory=list)
    truncated: list[Emptied] = field(default_factory=list)
    pending: list[Key] = field(default_factory=list)
    pending_touched: bool = False
    pending_types: list[str] = field(default_factory=list)
    pending_tenants: list[Emptied] = field(default_factory=list)
    pending_children: bool = False
    pending_referring: list[Referring] = field(default_factory=list)
    pending_done: Key | None = None
    pending_behind: Key | None = None
    opened: bool = False
    commands_done: list[tuple[int, str]] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    refused_statements: list[RefusedStatement] = field(default_factory=list)
    refused: int = 0
    said: bool = False
    placed: tuple[int, str] | None = None
    halted: list[Halt] = field(default_factory=list)
    lifted: list[str] = field(default_factory=list)

    @property
    def is_wide(self) -> bool:
        """Whether it may touch every row of a type."""
        types = self.ended_generations, self.truncated, self.pending_tenants, self.pending_referring
        return any(types) or self.placed is not None

    @property
    def is_small(self) -> bool:
        """Whether it ends within the usual time limit, and needs no COPY, which there is none of in a pipeline."""
        return not (self.is_wide or self.pending_children or self.statements)
