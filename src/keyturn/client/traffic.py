"""Traffic: the requests on their way, as the adapters report them.

Where tokens may go at all, which requests left with which tokens, and what
became of them.
"""

from __future__ import annotations

from keyturn.client import events
from keyturn.client.changes import Changes
from keyturn.client.gate import Patience
from keyturn.client.origins import Origin, spelled
from keyturn.client.snapshot import Snapshot

_MOST_STRAYS = 32


class Traffic(Changes):
    """What adapters ask of `Credentials` for a request."""

    origins: frozenset[Origin]
    _strays: set[str]

    def depart(self, snapshot: Snapshot) -> bool:
        """Note that a request leaves with these tokens, unless a refresh is about to spend them; tell which.

        Either waits for the other, never beside it: where every answer
        carries a new pair, whichever is later would show up with a spent one.
        """
        with self._lock:
            flight = self._flight
            if flight is not None and flight.carried is snapshot and not flight.stalled.is_open:
                return False
            self.departures.depart(snapshot)
        return True

    def on_their_way(self, snapshot: Snapshot) -> Patience | None:
        """Return the wait for the requests that left with these tokens; None once there are newer ones."""
        with self._lock:
            current = self._current
            if current is None or current.epoch != snapshot.epoch or current.generation > snapshot.generation:
                return None
            gate = self.departures.cleared(snapshot)
        return None if gate is None else Patience(gate, self._grant.timeout)

    def replayed(self, snapshot: Snapshot, replays: int) -> None:
        """Announce that a refused request is sent again with `snapshot`."""
        self.announce(events.Replayed, snapshot, replays=replays)

    def strayed(self, destination: str) -> None:
        """Warn, once an origin, of a request without tokens: a wrong `origins` shows in nothing else."""
        if destination not in self._strays and len(self._strays) < _MOST_STRAYS:
            self._strays.add(destination)
            ours = spelled(self.origins)
            events.logger.warning("keyturn: no token goes to %s: origins=%s", destination, ours)
