"""Scenario 4: `POST token/refreshToken {"refreshToken": …}`, 200 whatever happens, `success` in the body."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import httpx2
import pytest

import keyturn
from keyturn.client import events, grants
from keyturn.testing import StrictServer
from tests.kit import Log, in_threads

from .service import Service
from .ways import TLS, WITH_AUTH, Request, Way, announced, beside, statuses

RECEIVE = {
    "access": "customResult.accessToken",
    "refresh": "customResult.refreshToken",
    "expires_in": "customResult.expiresIn",
}
CALLS = [Request(f"/api/{i}") for i in range(6)] + [Request(f"/api/{i}", "POST", {"i": i}) for i in (6, 7)]


def by_names(url: str) -> grants.JSON:
    return grants.JSON(
        url + "/token/refreshToken",
        send="refreshToken",
        receive=RECEIVE,
        ended=lambda status, body: body.get("success") is False,
    )


def by_callables(url: str) -> grants.JSON:
    def send(tokens: keyturn.Tokens) -> Mapping[str, object]:
        return {"refreshToken": tokens.refresh}

    def receive(body: Mapping[str, object]) -> keyturn.Tokens:
        result = body["customResult"]
        assert isinstance(result, dict)
        expires_at = time.time() + float(result["expiresIn"])
        return keyturn.Tokens(result["accessToken"], result["refreshToken"], expires_at)

    return grants.JSON(
        url + "/token/refreshToken",
        send=send,
        receive=receive,
        ended=lambda status, body: status == 200 and not body["success"],
    )


GRANTS = [by_names, by_callables]
HOW = [pytest.param(by_names, way, id=f"names-{way}") for way in WITH_AUTH]
HOW += [pytest.param(by_callables, way, id=f"callables-{way}") for way in WITH_AUTH[:2]]


class House:
    """A server with this format, as the tests use it."""

    def __init__(
        self,
        url: str,
        sign_in: Callable[[], keyturn.Tokens],
        expire: Callable[[], None],
        everyone_out: Callable[[], None],
        hold: Callable[[int], None],
        refreshes: Callable[[], list[Mapping[str, object]]],
    ) -> None:
        self.url, self.sign_in, self.expire, self.everyone_out = url, sign_in, expire, everyone_out
        self.hold, self.refreshes = hold, refreshes


@pytest.fixture(scope="module")
def process() -> Iterator[Service]:
    with Service("keyturn_envelope") as service:
        yield service


def _keyturn(service: Service) -> House:
    service.reset()

    def sign_in() -> keyturn.Tokens:
        with httpx2.Client(verify=TLS, trust_env=False) as client:
            login = client.post(service.url + "/login")
        assert login.json()["success"] is True
        return by_names(service.url).read(login)

    def everyone_out() -> None:
        with httpx2.Client(verify=TLS, trust_env=False) as client:
            client.post(service.url + "/everyone-out")

    return House(
        service.url,
        sign_in,
        lambda: service.ahead(61.0),
        everyone_out,
        service.hold,
        lambda: [json.loads(one.body) for one in service.at("/token/refreshToken")],
    )


def _strict(server: StrictServer) -> House:
    return House(
        server.url,
        server.sign_in,
        server.expire,
        server.revoke,
        server.hold_api,
        lambda: [json.loads(one.body) for one in server.seen if one.path == "/token/refreshToken"],
    )


@pytest.fixture(params=["keyturn", "strict-server"])
def house(request: pytest.FixtureRequest) -> House:
    if request.param == "keyturn":
        return _keyturn(request.getfixturevalue("process"))
    return _strict(request.getfixturevalue("strict_server"))


class SignInPage:
    """What an application does when a session has ended: it sends the user to the sign-in page, once."""

    def __init__(self) -> None:
        self.opened: list[events.Ended] = []
        self.log = Log()

    def __call__(self, event: events.Event) -> None:
        self.log(event)
        if isinstance(event, events.Ended):
            self.opened.append(event)


def _credentials(house: House, page: SignInPage, grant: grants.JSON) -> keyturn.Credentials:
    return keyturn.Credentials(grant, tokens=house.sign_in(), origins=[house.url], on_event=page)


@pytest.mark.parametrize(("make", "way"), HOW)
def test_calls_with_an_expired_token_cost_one_refresh_in_the_format_of_the_house(
    house: House, make: Callable[[str], grants.JSON], way: Way
) -> None:
    page = SignInPage()
    credentials = _credentials(house, page, make(house.url))
    first = credentials.get_tokens()
    house.expire()
    house.hold(len(CALLS))

    assert statuses(way.send(credentials, house.url, CALLS)) == [200] * len(CALLS)

    assert house.refreshes() == [{"refreshToken": first.refresh}]
    after = credentials.get_tokens()
    assert (after.generation, after.refresh == first.refresh) == (1, False)
    assert after.left(time.time()) == pytest.approx(60, abs=10)
    assert not page.opened


@pytest.mark.parametrize(("make", "way"), HOW)
def test_success_false_ends_the_session_for_all_with_one_sign_in_page(
    house: House, make: Callable[[str], grants.JSON], way: Way
) -> None:
    page = SignInPage()
    credentials = _credentials(house, page, make(house.url))
    first = credentials.get_tokens()
    house.expire()
    house.everyone_out()
    house.hold(len(CALLS))
    errors: list[keyturn.SessionEnded] = []

    for _ in range(2):  # those who were on their way, and those who come afterwards
        with pytest.raises(keyturn.SessionEnded) as caught:
            way.send(credentials, house.url, CALLS)
        errors.append(caught.value)
    announced()

    assert {(one.reason, one.epoch, str(one)) for one in errors} == {("refused", first.epoch, str(errors[0]))}
    assert credentials.tokens is None
    assert len(house.refreshes()) == 1
    assert [one.epoch for one in page.opened] == [first.epoch]
    assert not page.log.of(events.Failed)


def test_every_waiter_gets_the_same_end_as_an_error_of_its_own(strict_server: StrictServer) -> None:
    page, count = SignInPage(), 20
    house = _strict(strict_server)
    credentials = _credentials(house, page, by_names(house.url))
    rejected = credentials.get_tokens()
    strict_server.revoke()
    strict_server.hold_refresh()
    errors: list[keyturn.SessionEnded] = []

    def caller(_: int) -> None:
        with pytest.raises(keyturn.SessionEnded) as caught:
            credentials.renew(rejected)
        errors.append(caught.value)

    def main() -> None:
        strict_server.wait_for(refreshes=1)
        strict_server.release()

    beside(main, lambda: in_threads(count, caller))
    announced()

    assert len({id(error) for error in errors}) == count
    assert {(error.reason, error.epoch, str(error)) for error in errors} == {
        ("refused", rejected.epoch, str(errors[0]))
    }
    assert (strict_server.stats.refreshes, len(page.opened)) == (1, 1)


@pytest.mark.parametrize("way", WITH_AUTH, ids=str)
def test_after_a_new_sign_in_calls_go_on_and_a_second_end_opens_the_page_once_more(
    house: House, way: Way
) -> None:
    page = SignInPage()
    credentials = _credentials(house, page, by_names(house.url))
    for _ in range(2):
        house.everyone_out()
        with pytest.raises(keyturn.SessionEnded):
            credentials.renew(credentials.get_tokens())
        credentials.sign_in(house.sign_in())
        assert statuses(way.send(credentials, house.url, CALLS)) == [200] * len(CALLS)
    announced()

    assert len({one.epoch for one in page.opened}) == len(page.opened) == 2
    assert len(house.refreshes()) == 2


def test_the_sign_in_page_may_sign_in_from_the_callback_and_everyone_who_comes_then_is_served(
    strict_server: StrictServer,
) -> None:
    house = _strict(strict_server)
    signed_in = threading.Event()

    def page(event: events.Event) -> None:
        if isinstance(event, events.Ended):
            credentials.sign_in(new)
            signed_in.set()

    credentials = keyturn.Credentials(
        by_names(house.url), tokens=house.sign_in(), origins=[house.url], on_event=page
    )
    strict_server.revoke()
    new = house.sign_in()

    with pytest.raises(keyturn.SessionEnded):
        credentials.renew(credentials.get_tokens())
    assert signed_in.wait(10)
    assert credentials.get_tokens().access == new.access


BROKEN = [
    pytest.param(500, {"success": None, "message": "database down"}, keyturn.OutcomeUnknown, id="500"),
    pytest.param(502, "<html>bad gateway", keyturn.OutcomeUnknown, id="502"),
    pytest.param(200, {"success": True, "customResult": None}, keyturn.OutcomeUnknown, id="200-empty"),
    pytest.param(200, {"success": True, "customResult": {}}, keyturn.OutcomeUnknown, id="200-no-token"),
    pytest.param(200, '"a string"', keyturn.OutcomeUnknown, id="200-string"),
    pytest.param(
        200,
        {"success": True, "customResult": {"accessToken": "", "refreshToken": "", "expiresIn": 60}},
        keyturn.OutcomeUnknown,
        id="200-empty-token",
    ),
    pytest.param(403, {"message": "blocked"}, keyturn.RefreshMisconfigured, id="403"),
]


@pytest.mark.parametrize("make", GRANTS)
@pytest.mark.parametrize(("status", "body", "error"), BROKEN)
def test_only_what_the_house_calls_the_end_is_one_and_an_open_outcome_is_not_sent_again(
    strict_server: StrictServer,
    make: Callable[[str], grants.JSON],
    status: int,
    body: Mapping[str, object] | str,
    error: type[keyturn.KeyturnError],
) -> None:
    house, page = _strict(strict_server), SignInPage()
    if status == 403 and make is by_callables:
        body = {"success": True, "message": "blocked"}
    strict_server.fail_refresh(status, body=body, times=10)
    credentials = _credentials(house, page, make(house.url))
    carried = credentials.get_tokens()

    for _ in range(3):
        with pytest.raises(error):
            credentials.renew(carried)
    announced()

    assert credentials.tokens is not None
    assert not page.opened
    if error is keyturn.OutcomeUnknown:
        assert strict_server.stats.refreshes == 1


def test_a_fault_of_the_house_with_success_false_is_no_end_where_the_grant_looks_at_the_status(
    strict_server: StrictServer,
) -> None:
    house, page = _strict(strict_server), SignInPage()
    strict_server.fail_refresh(500, body={"success": False, "message": "database down"})
    credentials = _credentials(house, page, by_callables(house.url))

    with pytest.raises(keyturn.OutcomeUnknown):
        credentials.renew(credentials.get_tokens())
    announced()

    assert credentials.tokens is not None
    assert not page.opened


def test_no_token_shows_in_what_the_page_is_told(strict_server: StrictServer) -> None:
    house, page = _strict(strict_server), SignInPage()
    credentials = _credentials(house, page, by_names(house.url))
    carried = credentials.get_tokens()
    strict_server.fail_refresh(200, body={"success": False, "message": f"{carried.refresh} is dead"})

    with pytest.raises(keyturn.SessionEnded) as caught:
        credentials.renew(carried)
    announced()

    told = f"{page.opened} {page.log.events} {caught.value!r} {credentials!r}"
    assert str(carried.refresh) not in told
    assert carried.access not in told
