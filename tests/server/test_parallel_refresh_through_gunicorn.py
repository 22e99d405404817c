"""Parallel and retried refreshes through gunicorn: two worker processes, one SQLite file, real sockets."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from .gunicorn import Service, served, wait_for

MAX_AHEAD = 5


class World:
    """A running service, its file and its clock."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self._file = folder / "sessions.db"
        self._clock = folder / "clock"
        self._ahead = 0.0

    def forward(self, seconds: float) -> None:
        self._ahead += seconds
        new = self._clock.with_suffix(".new")
        new.write_text(str(self._ahead))
        new.replace(self._clock)  # a reader sees the old text or the new one, never half

    def sql(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(self._file, timeout=30)
        with connection:
            rows = connection.execute(statement, values).fetchall()
        connection.close()
        return rows


@pytest.fixture
def world(tmp_path: Path, window: str) -> Iterator[World]:
    (tmp_path / "clock").write_text("0")
    environment = {
        "STORE": str(tmp_path / "sessions.db"),
        "CLOCK": str(tmp_path / "clock"),
        "WINDOW": window,
        "MAX_AHEAD": str(MAX_AHEAD),
    }
    with served("rotating:app", environment) as service:
        wait_for(service, workers=2)
        yield World(service, tmp_path)


@pytest.fixture
def window() -> str:
    return "10"


def sid_of(refresh: str) -> str:
    return refresh.split(".")[2]


def counter_of(refresh: str) -> int:
    return int(refresh.split(".")[3])


def test_50_refreshes_at_once_with_one_token_are_50_answers_and_one_successor_that_works(
    world: World,
) -> None:
    service = world.service
    token = service.sign_in().text("refresh_token")
    for generation in range(1, 4):
        answers = service.refresh_at_once([token] * 50)
        assert [answer.status for answer in answers] == [200] * 50
        successors = {answer.text("refresh_token") for answer in answers}
        assert len(successors) == 1
        assert len({answer.text("access_token") for answer in answers}) == 50
        token = successors.pop()
        assert counter_of(token) == generation
        assert service.statistics(answers[0].text("access_token")).status == 200
        world.forward(11)
    assert service.refresh(token).status == 200


@pytest.mark.parametrize("window", ["0"])
def test_with_a_window_of_0_50_at_once_are_one_winner_and_49_named_refusals(world: World) -> None:
    token = world.service.sign_in().text("refresh_token")
    answers = world.service.refresh_at_once([token] * 50)
    assert sorted(answer.status for answer in answers) == [200] + [401] * 49
    codes = [answer.body["code"] for answer in answers if answer.status == 401]
    assert sorted(map(str, codes)) == ["session_ended"] * 48 + ["token_reused"]


def test_1000_rotations_of_a_session_leave_the_number_of_rows_as_it_was(world: World) -> None:
    service = world.service
    token = service.sign_in().text("refresh_token")
    before = world.sql("SELECT count(*) FROM sessions")
    for _ in range(1000):
        world.forward(11)
        answer = service.refresh(token)
        assert answer.status == 200
        token = answer.text("refresh_token")
    assert counter_of(token) == 1000
    assert world.sql("SELECT count(*) FROM sessions") == before
    assert world.sql("SELECT counter FROM sessions WHERE sid = ?", sid_of(token)) == [(1000,)]


def test_an_answer_that_was_lost_is_given_again_within_the_window(world: World) -> None:
    service = world.service
    token = service.sign_in().text("refresh_token")
    lost = service.refresh(token)
    world.forward(8)
    again = service.refresh(token)
    assert (again.status, again.text("refresh_token")) == (200, lost.text("refresh_token"))


def test_an_old_token_after_the_window_ends_its_session_and_leaves_the_users_other_one(world: World) -> None:
    service = world.service
    phone, laptop = service.sign_in(), service.sign_in()
    newer = service.refresh(phone.text("refresh_token"))
    world.forward(11)
    refused = service.refresh(phone.text("refresh_token"))
    assert (refused.status, refused.body["error"], refused.body["code"]) == (
        401,
        "invalid_grant",
        "token_reused",
    )
    ended = service.refresh(newer.text("refresh_token"))
    assert (ended.status, ended.body["code"]) == (401, "session_ended")
    assert service.statistics(newer.text("access_token")).status == 401
    assert service.statistics(laptop.text("access_token")).status == 200
    assert service.refresh(laptop.text("refresh_token")).status == 200


def test_a_counter_ahead_of_the_row_is_moved_forward_up_to_max_ahead(world: World) -> None:
    service = world.service
    token = service.sign_in().text("refresh_token")
    for lost in (MAX_AHEAD, MAX_AHEAD + 1):
        before = world.sql("SELECT counter, rotated_at FROM sessions WHERE sid = ?", sid_of(token))[0]
        for _ in range(lost):
            world.forward(11)
            token = service.refresh(token).text("refresh_token")
        # The power fails, and the last commits were not on the disk yet.
        world.sql("UPDATE sessions SET counter = ?, rotated_at = ? WHERE sid = ?", *before, sid_of(token))
        answers = service.refresh_at_once([token] * 20)
        if lost == MAX_AHEAD:
            assert [answer.status for answer in answers] == [200] * 20
            (successor,) = {answer.text("refresh_token") for answer in answers}
            assert counter_of(successor) == counter_of(token) + 1
            token = successor
        else:
            assert {answer.body["code"] for answer in answers} == {"counter_too_far_ahead"}
            assert world.sql("SELECT counter, ended_at FROM sessions WHERE sid = ?", sid_of(token)) == [
                (before[0], None)
            ]


def test_a_sign_out_in_one_worker_holds_in_the_other(world: World) -> None:
    service = world.service
    pair = service.sign_in()
    out = service.call("POST", "/auth/logout", {"refresh_token": pair.text("refresh_token")})
    assert out.status == 200
    answers = service.refresh_at_once([pair.text("refresh_token")] * 16)
    assert {(answer.status, answer.body["code"]) for answer in answers} == {(401, "session_ended")}
