"""What a record says of a name: in a word, in words, and as data. Pure functions; nothing secret is in them.

All times are the store's, as its records' are, so that an operator's own
clock does not matter.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from keyturn.client.record import Failure, Marker, Record
from keyturn.client.token_stores.inventory import Item

State = Literal["signed in", "refreshing", "outcome unknown", "signed out", "refused", "unreadable"]
AMISS: set[State] = {"outcome unknown", "refused", "unreadable"}

LONGEST_REFRESH = 60.0  # seconds; a marker that is older was left by a process that did not come back
_UNITS = ((36 * 3600, 86400, "d"), (90 * 60, 3600, "h"), (90, 60, "min"), (0, 1, "s"))


def state(item: Item) -> State:
    """Return what has become of a session.

    A marker that is the record's says that a refresh was begun whose end is
    not recorded: it is under way, or, after a minute or where it has failed,
    nobody knows what came of it.
    """
    record = item.record
    if record is None:
        return "unreadable"
    if record.ended is not None:
        return "signed out" if record.ended == "signed_out" else "refused"
    marker, failed = record.marker, record.failure
    if failed is not None and failed.kind == "unknown":
        return "outcome unknown"
    if marker is None or not _counts(marker, record):
        return "signed in"
    is_under_way = item.now - marker.at < LONGEST_REFRESH and (failed is None or failed.at < marker.at)
    return "refreshing" if is_under_way else "outcome unknown"


def is_encrypted(record: Record) -> bool | None:
    """Tell whether a record's tokens are encrypted; None where it has none."""
    return None if record.sealed is None else not record.sealed.startswith("{")


def expiry(record: Record, now: float) -> str:
    """Return when the access token expires, from now."""
    if record.ended is not None:
        return "-"
    return "unknown" if record.expires_at is None else relative(record.expires_at, now)


def saved(record: Record, now: float) -> str:
    """Return what was saved last, and when."""
    what = "refreshed" if record.generation else "signed in"
    return f"{what if record.ended is None else 'ended'} {relative(record.saved_at, now)}"


def failure(record: Record, now: float) -> str:
    """Return the class of the last error and its age; "" without one."""
    return "" if record.failure is None else f"{record.failure.error} {relative(record.failure.at, now)}"


def relative(at: float, now: float) -> str:
    """Return a moment as seen from another: "in 12 min", "3 h ago"."""
    distance = abs(at - now)
    _, size, unit = next(row for row in _UNITS if distance >= row[0])
    number = f"{distance / size:.0f} {unit}"
    return f"in {number}" if at > now else f"{number} ago"


def clock(at: float, now: float) -> str:
    """Return a moment in UTC as the shortest text that is clear today: its time, its day, or its date."""
    moment, today = _utc(at), _utc(now)
    if moment is None or today is None:
        return "-"
    if moment.date() == today.date():
        return f"{moment:%H:%MZ}"
    return f"{moment:%m-%d}" if moment.year == today.year else f"{moment:%Y-%m-%d}"


def stamp(at: float) -> str:
    """Return a moment in UTC, to the second."""
    moment = _utc(at)
    return f"{at:.0f} s of POSIX time" if moment is None else f"{moment:%Y-%m-%d %H:%M:%SZ}"


def as_json(item: Item) -> dict[str, object]:
    """Return all of an item but its tokens and fingerprints; times in ISO 8601 (UTC) and POSIX seconds."""
    said: dict[str, object] = {"name": item.name, "state": state(item).replace(" ", "_")}
    record = item.record
    if record is None:
        return said | {"problem": item.problem}
    marker = record.marker
    return {
        **said,
        **_times("now", item.now),
        "epoch": record.epoch,
        "generation": record.generation,
        **_times("began_at", record.began_at),
        **_times("saved_at", record.saved_at),
        **_times("expires_at", record.expires_at),
        "expires_in": None if record.expires_at is None else round(record.expires_at - item.now, 3),
        "lifetime": record.lifetime,
        "ended": record.ended,
        "encrypted": is_encrypted(record),
        "remembers_seed": record.seed is not None,
        "marker": None if marker is None else _times("at", marker.at) | {"counts": _counts(marker, record)},
        "failure": None if record.failure is None else _failure_as_json(record.failure),
    }


def in_words(item: Item) -> list[tuple[str, str]]:
    """Return all of an item in words, as pairs of what and how; but neither tokens nor fingerprints."""
    record, now = item.record, item.now
    if record is None:
        return [("state", "unreadable"), ("problem", item.problem or "")]
    rows = [("state", state(item)), ("epoch", record.epoch), ("generation", str(record.generation))]
    rows.append(("signed in", _moment(record.began_at, now)))
    if record.ended is not None:
        rows.append(("ended", f"{_moment(record.saved_at, now)}; the record is a tombstone: no tokens"))
    else:
        if record.generation:
            rows.append(("refreshed", _moment(record.saved_at, now)))
        rows.append(("expires", _expiry_in_words(record, now)))
        rows.append(("tokens", "encrypted" if is_encrypted(record) else "in plain text: not encrypted"))
    rows.append(("seed", "remembered, as a fingerprint" if record.seed else "none"))
    rows.append(("marker", _marker_in_words(record, now)))
    rows.append(("last error", _failure_in_words(record.failure, now)))
    return rows


def _expiry_in_words(record: Record, now: float) -> str:
    if record.expires_at is None:
        return "unknown: nobody said"
    lives = "" if record.lifetime is None else f", after a life of {record.lifetime:g} s"
    return _moment(record.expires_at, now) + lives


def _marker_in_words(record: Record, now: float) -> str:
    if record.marker is None:
        return "none"
    begun = f"a refresh was begun {_moment(record.marker.at, now)}"
    return (
        f"{begun}, and its end is not recorded"
        if _counts(record.marker, record)
        else f"{begun}, of an earlier pair"
    )


def _failure_in_words(failed: Failure | None, now: float) -> str:
    if failed is None:
        return "none"
    status = "" if failed.status is None else f", status {failed.status}"
    later = "" if failed.not_before is None else f"; not again before {stamp(failed.not_before)}"
    return f"{failed.error}{status}, {_moment(failed.at, now)}: {failed.message}{later}"


def _failure_as_json(failed: Failure) -> dict[str, object]:
    return {
        "kind": failed.kind,
        "error": failed.error,
        "message": failed.message,
        "status": failed.status,
        **_times("at", failed.at),
        **_times("not_before", failed.not_before),
    }


def _counts(marker: Marker, record: Record) -> bool:
    """Tell whether a marker is of this pair, as far as can be told without its tokens."""
    return (marker.epoch, marker.generation) == record.version


def _moment(at: float, now: float) -> str:
    return f"{relative(at, now)} ({stamp(at)})"


def _times(name: str, at: float | None) -> dict[str, object]:
    moment = None if at is None else _utc(at)
    iso = None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {name: iso, f"{name}_posix": at}


def _utc(at: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(at, UTC)
    except (ValueError, OverflowError, OSError):  # a server may say that a token lives for ever
        return None
