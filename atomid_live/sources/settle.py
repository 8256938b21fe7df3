"""One watched file: settling, ready, waiting, done or set aside. Pure bookkeeping; the clock is a parameter."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from atomid_live.sources.files import Identity
from atomid_live.sources.readers.raw import Key

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
CLOSED_SETTLE_S = 0.05
IMPATIENCE = 8
"""A file that grows without pause is looked into after this many settle periods, if its format shows which frames are whole."""


class Phase(Enum):
    """Where a file stands."""

    SETTLING = "settling"
    READY = "ready"
    DONE = "done"


@dataclass(slots=True, eq=False)
class Watched:
    """What is known of one file.

    Attributes
    ----------
    identity : Identity
        At the last look.
    changed_s, first_s : float
        When it last changed, and when the present unrest began, on our monotonic clock.
    looks : int
        How often it was found unchanged since.
    closed : bool
        Whether the system said that its writer closed it or moved it into place.
    due_s, delay_s : float
        When to look again, and the present back-off.
    reason : str
        Why it waits; "" when it does not.
    locked, zero_tail : bool
        Kinds of waiting that are treated apart.
    handed : dict
        Frames handed out by this process: key to identity.
    left : int
        Whole frames known but not read.
    acquired_s : float or None
        Acquisition time by the file itself, None before it was asked.
    """

    path: Path
    identity: Identity
    changed_s: float
    first_s: float
    looks: int = 0
    closed: bool = False
    phase: Phase = Phase.SETTLING
    due_s: float = -math.inf
    delay_s: float = FIRST_DELAY_S
    reason: str = ""
    locked: bool = False
    zero_tail: bool = False
    attempts: int = 0
    handed: dict[Key, str] = field(default_factory=dict)
    unanswered: int = 0
    left: int = 0
    acquired_s: float | None = None

    def change(self, identity: Identity, now: float) -> None:
        """Begin again: the file is not what it was."""
        if self.phase is not Phase.SETTLING or self.attempts:
            self.first_s = now
        self.identity, self.changed_s, self.looks, self.closed = identity, now, 0, False
        self.phase, self.due_s, self.delay_s = Phase.SETTLING, -math.inf, FIRST_DELAY_S
        self.reason, self.locked, self.zero_tail, self.attempts = "", False, False, 0
        self.left, self.acquired_s = 0, None

    def settled_at(self, settle_s: float) -> float:
        """When the file may be probed if it does not change again."""
        need = min(settle_s, CLOSED_SETTLE_S) if self.closed else settle_s
        quiet = self.changed_s + need
        if self.path.suffix.lower() == ".emd":
            quiet = min(quiet, self.first_s + IMPATIENCE * settle_s)
        return max(quiet, self.due_s)

    def is_settled(self, now: float, settle_s: float) -> bool:
        """Whether it was seen unchanged for long enough, or grows so long that its frames are looked for meanwhile."""
        unchanged = self.looks > 0 or now >= self.first_s + IMPATIENCE * settle_s
        return unchanged and now >= self.settled_at(settle_s)

    def wait(self, reason: str, now: float) -> None:
        """Put off: not whole, locked or gone; the pause doubles up to half a minute."""
        self.phase, self.reason, self.due_s = Phase.SETTLING, reason, now + self.delay_s
        self.delay_s = min(2 * self.delay_s, LONGEST_DELAY_S)
        self.attempts += 1
        self.first_s = now

    def still_for(self, now: float) -> float:
        """Seconds since the last change."""
        return now - self.changed_s
