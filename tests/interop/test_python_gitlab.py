"""python-gitlab, given a session of requests with keyturn's `Auth`, as its page in docs/using-with has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gitlab
import pytest

import keyturn
from keyturn.testing import StrictServer
from tests.interop.gitlab_api import PAGES, gitlab_api
from tests.interop.loopback import Loopback, Room, serve
from tests.interop.pages import DOCS, blocks
from tests.kit import in_threads
from tests.waiting import start

CALLS = 50
NAMES = [f"project {i}" for i in range(CALLS)]


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def api(strict_server: StrictServer, room: Room) -> Iterator[Loopback]:
    with serve(gitlab_api(room), strict_server) as loopback:
        yield loopback


@pytest.fixture
def page(strict_server: StrictServer, api: Loopback) -> SimpleNamespace:
    (block,) = blocks(DOCS / "using-with/python-gitlab.md", issuer=strict_server.url, api=api.url)
    return block


def storm(client: gitlab.Gitlab) -> list[str]:
    return in_threads(CALLS, lambda i: str(client.projects.get(i).name))


def test_many_threads_that_are_all_refused_share_one_refresh_and_are_then_served_at_once(
    strict_server: StrictServer, api: Loopback, page: Any, room: Room
) -> None:
    with page.connect(page.credentials_for(strict_server.sign_in())) as client:
        strict_server.expire()
        strict_server.hold_api(CALLS)
        room.lock()
        names = start(lambda: storm(client))
        room.wait_for(CALLS)
        room.unlock()

        assert names.result(60) == NAMES
    assert strict_server.stats.refreshes == 1
    assert api.answers == {401: CALLS, 200: CALLS}


def test_a_token_that_is_known_to_have_expired_is_renewed_before_anything_is_sent(
    strict_server: StrictServer, api: Loopback, page: Any
) -> None:
    with page.connect(page.credentials_for(strict_server.sign_in(ttl=0))) as client:
        assert storm(client) == NAMES

    assert strict_server.stats.refreshes == 1
    assert api.answers == {200: CALLS}


def test_a_session_that_was_revoked_ends_every_call_with_the_one_error_after_one_refresh(
    strict_server: StrictServer, api: Loopback, page: Any
) -> None:
    def refused(client: gitlab.Gitlab, number: int) -> str:
        with pytest.raises(keyturn.SessionEnded) as caught:
            client.projects.get(number)
        return caught.value.reason

    with page.connect(page.credentials_for(strict_server.sign_in())) as client:
        strict_server.revoke()
        assert in_threads(CALLS, lambda i: refused(client, i)) == ["refused"] * CALLS

    assert strict_server.stats.refreshes == 1


def test_a_token_that_expires_between_two_pages_of_a_list_is_renewed_on_the_way(
    strict_server: StrictServer, api: Loopback, page: Any
) -> None:
    with page.connect(page.credentials_for(strict_server.sign_in())) as client:
        issues = iter(client.projects.get(1, lazy=True).issues.list(iterator=True))
        seen = [next(issues).iid]
        strict_server.expire()
        seen += [issue.iid for issue in issues]

    assert seen == list(range(1, PAGES + 1))
    assert strict_server.stats.refreshes == 1


def test_a_body_of_json_that_was_refused_is_sent_again(
    strict_server: StrictServer, api: Loopback, page: Any
) -> None:
    with page.connect(page.credentials_for(strict_server.sign_in())) as client:
        strict_server.expire()
        issue = client.projects.get(1, lazy=True).issues.create({"title": "refused at first"})

    assert issue.title == "refused at first"


def test_an_upload_that_was_refused_is_never_sent_half_but_raises_and_can_be_made_anew(
    strict_server: StrictServer, api: Loopback, page: Any, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"x" * 300_000)
    with page.connect(page.credentials_for(strict_server.sign_in())) as client:
        project = client.projects.get(1, lazy=True)
        strict_server.expire()
        with pytest.raises(keyturn.NotReplayable):
            project.upload("notes.txt", filepath=str(path))

        assert project.upload("notes.txt", filepath=str(path))["id"] == 300_000
    assert strict_server.stats.refreshes == 1


def test_a_token_given_to_python_gitlab_itself_takes_the_place_of_the_session_s(
    strict_server: StrictServer, api: Loopback, page: Any
) -> None:
    """A fact of the page, about another library: its own auth goes with each request."""
    with page.connect(page.credentials_for(strict_server.sign_in())) as client:
        mixed = gitlab.Gitlab(api.url, oauth_token="stale", session=client.session)
        with pytest.raises(gitlab.GitlabAuthenticationError):
            mixed.projects.get(1)

    assert strict_server.stats.refreshes == 0


def test_a_refusal_of_the_renewed_token_is_python_gitlab_s_own_error(
    strict_server: StrictServer, api: Loopback, page: Any
) -> None:
    strict_server.fail_api(401, times=2)
    with (
        page.connect(page.credentials_for(strict_server.sign_in())) as client,
        pytest.raises(gitlab.GitlabAuthenticationError),
    ):
        client.projects.get(1)

    assert strict_server.stats.refreshes == 1
