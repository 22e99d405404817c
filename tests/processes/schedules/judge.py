"""Judge: the invariants, over the account of a schedule. No I/O.

    uses        a refresh token is used again only inside its window, or after the server
                said that it had done nothing; and the server never sees reuse
    outcomes    whatever a caller is told is in order, given what had gone wrong by then
    expiry      nobody is handed an expired token as a success
    histories   no process goes back, to an earlier generation or an earlier epoch
    records     nor does the record; an epoch that was signed out of does not come back
    requests    none is sent again as somebody else's: nothing crosses a sign-in
    sign-ins    a session is lost only where no window could save it

That everybody is answered at all, and that the record is the newest live
pair, is seen to by `stage.py` and `ending.py`.

What cannot be had is excused, and nothing else: see `_suspended` and `_lost`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.processes.schedules.account import SWEEPER, Account, Arrival, Asked
from tests.processes.schedules.generator import SHORT
from tests.processes.schedules.steps import STORE_FAULTS, Schedule

_LATE = 0.3  # seconds, for an exchange that is sent in time to arrive

SILENT = ("kill", "stop", "drop", "delay", "pause", *sorted(STORE_FAULTS))
"""After which nobody may know whether an exchange was made."""

DISTURBED = (*SILENT, "fail", "hold", "sign_in", "sign_out", "revoke", "close", "start")


def judged(account: Account) -> list[str]:
    """Return what is broken, in words."""
    rules = (_uses, _outcomes, _expiry, _histories, _records, _requests, _sign_ins)
    return [*account.broken, *(said for rule in rules for said in rule(account))]


def margin(schedule: Schedule) -> float:
    """Return how much of the window's end is left unused."""
    return min(1.0, schedule.window / 10)


def _uses(account: Account) -> Iterator[str]:
    window = account.schedule.window
    by_token: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in account.arrivals:
        if arrival.who != SWEEPER:
            by_token[arrival.token].append(arrival)
    if account.stats.reuses and not _may_reuse(account):
        yield f"the server has seen {account.stats.reuses} spent tokens"
    if _may_reuse(account):
        return
    for token, arrivals in by_token.items():
        open_since: float | None = None
        for arrival in arrivals:
            if open_since is not None and arrival.at - open_since > window + (_LATE if window else 0.0):
                since = f"{arrival.at - open_since:.2f} s after it may have been spent"
                yield f"token {token} was used again by {arrival.who}, {since}"
                break
            if open_since is None and not arrival.spent_nothing:
                open_since = arrival.at


def _may_reuse(account: Account) -> bool:
    return _suspended(account) or _lost(account)


def _suspended(account: Account) -> bool:
    """Tell whether a process may have slept between its last look at the window and its sending.

    No fence reaches a foreign token end point. In a long window nobody sleeps
    that long here; without one, nobody spends what another has marked.
    """
    return account.schedule.window == SHORT and account.did("stop", "pause", "down", "restart")


def _lost(account: Account) -> bool:
    """Tell whether the store lost markers, leases and tombstones.

    Inside a window that heals, unless all who knew what was lost have gone too.
    """
    return account.did("lose") and (
        account.schedule.window in {0.0, SHORT} or account.did("kill", "close", "stop", "start")
    )


def _outcomes(account: Account) -> Iterator[str]:
    for asked in account.asked:
        if asked.over is None:
            continue
        for outcome in asked.outcomes:
            if not _in_order(account, asked, outcome):
                at = f"{asked.at - account.began:.3f} to {asked.over - account.began:.3f} s"
                yield f"{asked.who} {asked.do} came to {outcome!r}, {at}, which nothing explains"


def _in_order(account: Account, asked: Asked, outcome: str) -> bool:
    before, schedule = asked.over, account.schedule
    match outcome.split():
        case ["200"]:
            return True
        case ["401"]:
            return account.did("expire", "sign_in", "sign_out", "revoke", before=before) or schedule.ttl < 10
        case ["SessionEnded", "signed_out"]:
            return account.did("sign_out", before=before)
        case ["SessionEnded", "replaced"]:
            new = account.did("sign_in", "lose", before=before)
            return new or bool(account.signed_in_at_the_end)
        case ["SessionEnded", "refused"]:
            return account.did("revoke", before=before) or _may_reuse(account)
        case ["OutcomeUnknown"]:
            return _may_be_unknown(account, asked)
        case ["RefreshUnavailable"]:
            return account.did(*DISTURBED, before=before)
        case ["TokenStoreUnavailable"]:
            return account.did(*SILENT, "hold", before=before)
        case ["CredentialsClosed"]:
            return account.did("close", before=before)
        case ["NotSignedIn"]:
            return account.did("lose", before=before)
    return False


def _may_be_unknown(account: Account, asked: Asked) -> bool:
    """Tell whether nobody can know what came of an exchange, and no window is left to find out."""
    window, over = account.schedule.window, asked.over
    if not window or over is None:
        silent = account.did(*SILENT, before=over)
        return silent or any(step.do == "fail" and step.how == 500 for step in account.schedule.steps)
    first = min((one.at for one in account.arrivals if one.who != SWEEPER), default=account.began)
    longest = max(min(one.over or over, over) - one.at for one in account.asked if one.at <= over)
    return longest >= account.schedule.retry_for * 0.5 or over - first >= window * 0.5


def _expiry(account: Account) -> Iterator[str]:
    for asked in account.asked:
        left = None if asked.answer is None else asked.answer.get("expires_in")
        if asked.do == "get_tokens" and left is not None and left < -0.2 and not _born_late(account, asked):
            yield f"{asked.who} was handed a token that had expired {-left:.2f} s ago"


def _born_late(account: Account, asked: Asked) -> bool:
    """Tell whether the token was bought while this caller waited, by an exchange that outlasted its life.

    A life counts from the sending. One refresh is tried, and no loop begun.
    """
    if asked.answer is None or asked.over is None:
        return False
    sent = asked.over + asked.answer["expires_in"] - account.schedule.ttl
    return any(
        abs(one.at - sent) < _LATE * 2 and one.answered_at is not None and one.answered_at >= asked.at
        for one in account.arrivals
    )


def _histories(account: Account) -> Iterator[str]:
    for who, history in account.histories.items():
        last: dict[str, int] = {}
        current = ""
        for epoch, generation in history:
            if epoch != current and epoch in last and not account.did("lose"):
                yield f"{who} went back to epoch {epoch[:4]}: {_short(history)}"
            if generation < last.get(epoch, 0):
                yield f"{who} went back to generation {generation} of epoch {epoch[:4]}: {_short(history)}"
            current, last[epoch] = epoch, generation


def _records(account: Account) -> Iterator[str]:
    if account.did("lose"):
        return
    last: dict[str, int] = {}
    over: set[str] = set()
    current = ""
    for at, record in account.records:
        if record is None:
            if last:
                yield "the record is gone"
            continue
        when = f"at {at - account.began:.3f} s"
        if record.epoch != current and record.epoch in last:
            yield f"the record went back to epoch {record.epoch[:4]} {when}"
        if record.generation < last.get(record.epoch, 0):
            yield f"the record went back to generation {record.generation} {when}"
        if record.ended is not None:
            over.add(record.epoch)
        elif record.epoch in over:
            yield f"epoch {record.epoch[:4]}, which had ended, is back {when}"
        current, last[record.epoch] = record.epoch, record.generation


def _requests(account: Account) -> Iterator[str]:
    whose: dict[str, str] = {}
    for sent in account.sent:
        if whose.setdefault(sent.request, sent.subject) != sent.subject:
            yield f"{sent.request} was sent as {whose[sent.request]}'s, and again as {sent.subject}'s"


def _sign_ins(account: Account) -> Iterator[str]:
    schedule = account.schedule
    for why in account.signed_in_at_the_end:
        in_order = {
            "signed_out": account.did("sign_out"),
            "refused": account.did("revoke") or _may_reuse(account),
            "the store has lost the record": account.did("lose"),
            "the session has ended at the server": account.did("revoke") or _may_reuse(account),
            "marked": not schedule.window and (account.did(*SILENT, "fail")),
            "marked, and the window is over": schedule.window == SHORT,
        }
        if not in_order[why]:
            yield f"a session was lost: {why}"


def _short(history: list[tuple[str, int]]) -> str:
    return " ".join(f"{epoch[:4]}/{generation}" for epoch, generation in history)
