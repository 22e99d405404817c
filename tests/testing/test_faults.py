"""Holds, failures and dropped answers."""

from __future__ import annotations

import http.client
from typing import Literal

import pytest

from keyturn.errors import ConfigurationError
from keyturn.testing import StrictServer

from .wire import call, in_background, refresh, results


def test_a_barrier_answers_nobody_before_all_fifty_have_arrived(strict_server: StrictServer) -> None:
    access = strict_server.sign_in().access
    strict_server.hold_api(50)
    with in_background(50) as pool:
        asked = [pool.submit(call, strict_server, "/x", access=access) for _ in range(49)]
        strict_server.wait_for(api=49)
        assert strict_server.stats.answered == 0
        asked.append(pool.submit(call, strict_server, "/x", access=access))
        assert {answer.status for answer in results(asked)} == {200}
    seen = strict_server.seen
    assert min(one.answered_at or 0.0 for one in seen) >= max(one.at for one in seen)
    assert call(strict_server, "/x", access=access).status == 200, "the next one is not held"


def test_a_release_opens_a_barrier(strict_server: StrictServer) -> None:
    strict_server.hold_api(2)
    with in_background(1) as pool:
        held = pool.submit(call, strict_server, "/x")
        strict_server.wait_for(api=1)
        strict_server.release()
        assert held.result(timeout=30).status == 401


@pytest.mark.parametrize(("stage", "rotations"), [("before", 0), ("after", 1)])
def test_a_refresh_is_held_before_or_after_it_rotates(
    strict_server: StrictServer, stage: Literal["before", "after"], rotations: int
) -> None:
    tokens = strict_server.sign_in()
    strict_server.hold_refresh(stage)
    with in_background(1) as pool:
        held = pool.submit(refresh, strict_server, tokens.refresh)
        strict_server.wait_for(refreshes=1, rotations=rotations)
        assert strict_server.stats.rotations == rotations
        assert strict_server.seen[0].status is None
        strict_server.release()
        assert held.result(timeout=30).status == 200
    assert refresh(strict_server, tokens.refresh).status == 400, "released means held no more"


def test_a_reset_lets_go_of_whoever_is_held_without_a_trace(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    strict_server.hold_refresh("before")
    strict_server.hold_api(2)
    with in_background(2) as pool:
        held = [
            pool.submit(refresh, strict_server, tokens.refresh),
            pool.submit(call, strict_server, "/x", access=tokens.access),
        ]
        strict_server.wait_for(refreshes=1, api=1)
        strict_server.reset()
        results(held)
    assert (strict_server.stats.rotations, strict_server.stats.answered, strict_server.seen) == (0, 0, [])


def test_a_failed_refresh_rotates_nothing(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    strict_server.fail_refresh(503, headers={"Retry-After": "2"}, body={"error": "busy"}, times=2)
    for _ in range(2):
        answer = refresh(strict_server, tokens.refresh)
        assert (answer.status, answer.headers["Retry-After"], answer.json) == (503, "2", {"error": "busy"})
        assert answer.headers["Content-Type"] == "application/json"
    assert refresh(strict_server, tokens.refresh).status == 200
    assert (strict_server.stats.refreshes, strict_server.stats.rotations) == (3, 1)


def test_faults_of_the_token_end_point_come_in_the_order_they_were_set(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    strict_server.fail_refresh(429)
    strict_server.fail_refresh(200, body="no json")
    strict_server.fail_refresh(403, body=b"\xff")
    assert [refresh(strict_server, tokens.refresh).body for _ in range(3)] == [b"", b"no json", b"\xff"]
    assert [one.status for one in strict_server.seen] == [429, 200, 403]


def test_an_answer_dropped_after_the_rotation_has_spent_the_token(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    strict_server.drop_refresh()
    with pytest.raises(http.client.RemoteDisconnected):
        refresh(strict_server, tokens.refresh)
    assert strict_server.stats.rotations == 1
    seen = strict_server.seen[0]
    assert (seen.status, seen.answered_at is None) == (None, False)
    assert refresh(strict_server, tokens.refresh).json["error"] == "invalid_grant"


def test_inside_the_window_a_dropped_answer_can_be_had_again(strict_server: StrictServer) -> None:
    strict_server.configure(window=3600)
    tokens = strict_server.sign_in()
    strict_server.drop_refresh(times=2)
    for _ in range(2):
        with pytest.raises(http.client.RemoteDisconnected):
            refresh(strict_server, tokens.refresh)
    successor = refresh(strict_server, tokens.refresh).json["refresh_token"]
    assert refresh(strict_server, successor).status == 200
    assert strict_server.stats.rotations == 2


def test_an_answer_dropped_before_the_rotation_has_spent_nothing(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    strict_server.drop_refresh(rotated=False)
    with pytest.raises(http.client.RemoteDisconnected):
        refresh(strict_server, tokens.refresh)
    assert strict_server.stats.rotations == 0
    assert refresh(strict_server, tokens.refresh).status == 200


def test_faults_reach_every_token_end_point(strict_server: StrictServer) -> None:
    for path in ("/token", "/token/refreshToken", "/token/refresh"):
        strict_server.fail_refresh(502)
        assert call(strict_server, path, method="POST").status == 502
    assert strict_server.stats.refreshes == 3


def test_the_api_fails_as_told_on_the_path_named(strict_server: StrictServer) -> None:
    access = strict_server.sign_in().access
    strict_server.fail_api(422, {"X-Why": "y"}, {"msg": "expired"}, times=1, path="/b")
    assert call(strict_server, "/a", access=access).status == 200
    answer = call(strict_server, "/b", access=access)
    assert (answer.status, answer.headers["X-Why"], answer.json) == (422, "y", {"msg": "expired"})
    assert call(strict_server, "/b", access=access).status == 200
    strict_server.drop_api()
    with pytest.raises(http.client.RemoteDisconnected):
        call(strict_server, "/a", access=access)
    assert strict_server.stats.api == 4


def test_a_refresh_takes_as_long_as_configured_and_rotates_though_its_caller_left(
    strict_server: StrictServer,
) -> None:
    strict_server.configure(refresh_delay=0.1)
    tokens = strict_server.sign_in()
    refresh(strict_server, tokens.refresh)
    seen = strict_server.seen[0]
    assert seen.answered_at is not None
    assert seen.answered_at - seen.at >= 0.1


def test_a_refresh_rotates_though_its_caller_has_gone(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    strict_server.hold_refresh("before")
    body = f"grant_type=refresh_token&refresh_token={tokens.refresh}"
    connection = http.client.HTTPConnection(strict_server.url.removeprefix("http://"), timeout=30)
    connection.request("POST", "/token", body, {"Content-Type": "application/x-www-form-urlencoded"})
    strict_server.wait_for(refreshes=1)
    connection.close()
    strict_server.release()
    assert strict_server.wait_for(rotations=1).rotations == 1


def test_waiting_returns_the_counts_or_raises_with_them(strict_server: StrictServer) -> None:
    with pytest.raises(TimeoutError, match=r"Stats\(refreshes=0"):
        strict_server.wait_for(timeout=0.01, refreshes=1)
    call(strict_server, "/x")
    assert strict_server.wait_for(api=1, refused=1).api == 1
    with pytest.raises(ConfigurationError, match="logins is no counter"):
        strict_server.wait_for(logins=1)


def test_the_control_paths_are_closed_to_whoever_lacks_the_secret(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    answer = call(strict_server, "/_control/revoke", method="POST", body=b'{"subject": null}')
    assert answer.status == 403
    assert strict_server.alive(tokens)
    assert strict_server.seen == []


def test_arguments_that_cannot_work_are_named(strict_server: StrictServer) -> None:
    with pytest.raises(ConfigurationError, match="speed is no setting"):
        strict_server.configure(speed=1)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="rotates must be of type bool"):
        StrictServer(rotates=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        strict_server.hold_api(0)
    with pytest.raises(ConfigurationError):
        strict_server.hold_refresh("between")  # type: ignore[arg-type]
