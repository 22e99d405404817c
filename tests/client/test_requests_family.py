"""Auth for requests and niquests: what a session does with a request, and that keyturn leaves it working."""

from __future__ import annotations

import contextlib
import copy
import pickle
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import pytest

import keyturn
from keyturn.client import grants
from keyturn.client.carriers import Bearer, InBody
from keyturn.testing import StrictServer
from tests.client.requests_kit import Library, Scripted, both, cookie_credentials
from tests.kit import credentials_for

URL = "https://api.example"
# What niquests hands to its adapters beside the request's own.
OF_NIQUESTS = {"multiplexed", "on_post_connection", "on_upload_body", "on_early_response"}


def credentials_of(*origins: str, carrier: Any = None) -> keyturn.Credentials:
    """Return credentials that nothing ever refreshes."""
    tokens = keyturn.Tokens(
        access="an-access-token",
        refresh="a-refresh-token",
        expires_at=time.time() + 3600,
        extra={"csrf_access_token": "a-csrf-value"},
    )
    grant = grants.OAuth2("https://id.example/token", client_id="tests")
    return keyturn.Credentials(grant, tokens=tokens, origins=origins or [URL], carrier=carrier)


def redirecting(library: Library, session: Any, *urls: str) -> Scripted:
    """Mount what answers each request with a redirect to the next of the URLs, and then with a 200."""
    targets = iter(urls)

    def answer(_: Any) -> tuple[int, dict[str, str]]:
        target = next(targets, None)
        return (200, {}) if target is None else (307, {"Location": target})

    return Scripted(library, answer).on(session)


def superseding(credentials: keyturn.Credentials) -> Any:
    """Return what refuses the first request, when newer tokens are there already."""
    statuses = iter([401, 200])

    def answer(_: Any) -> tuple[int, dict[str, str]]:
        if (status := next(statuses)) == 401:
            current = credentials.tokens
            assert current is not None
            credentials.adopt(
                keyturn.Tokens(access="newer", refresh="r", expires_at=time.time() + 3600), current
            )
        return status, {}

    return answer


# Setting it up


@both
def test_it_takes_nothing_but_credentials(library: Library) -> None:
    with pytest.raises(keyturn.ConfigurationError, match=r"Auth takes keyturn\.Credentials, not str"):
        library.adapter.Auth("token")


@pytest.mark.parametrize("name", ["requests", "niquests"])
def test_without_the_library_the_import_names_the_install_line(name: str) -> None:
    code = (
        f"import sys; sys.modules[{name!r}] = None\nimport keyturn\n"
        f"try:\n    import keyturn.client.{name}\n"
        "except keyturn.errors.MissingExtra as error:\n    print(error)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert f"pip install 'keyturn[{name}]'" in done.stdout


@both
def test_a_session_that_is_pickled_says_why_it_cannot_be(library: Library) -> None:
    session = library.session(credentials_of())

    with pytest.raises(TypeError, match="Credentials cannot be pickled: create them in the process"):
        pickle.dumps(session)


@both
def test_a_copied_session_shares_the_credentials(strict_server: StrictServer, library: Library) -> None:
    credentials = credentials_for(strict_server)
    strict_server.expire()

    with library.session(credentials) as session, copy.copy(session) as twin:
        assert twin.get(strict_server.url + "/a", timeout=30).status_code == 200
        assert session.get(strict_server.url + "/b", timeout=30).status_code == 200

    assert strict_server.stats.refreshes == 1


@both
def test_a_pickled_response_comes_back_without_the_credentials(
    strict_server: StrictServer, library: Library
) -> None:
    credentials = cookie_credentials(strict_server)
    strict_server.expire()
    with library.session(credentials) as session:
        response = session.get(strict_server.url + "/redirect/307?to=/statistics", timeout=30)

    back = pickle.loads(pickle.dumps(response))  # noqa: S301 - our own

    assert (back.status_code, back.content) == (200, response.content)
    assert [one(back) for one in back.request.hooks["response"]] == [None]


@both
def test_nothing_that_a_repr_shows_is_a_secret(strict_server: StrictServer, library: Library) -> None:
    credentials = cookie_credentials(strict_server)
    tokens = credentials.tokens
    assert tokens is not None
    with library.session(credentials) as session:
        response = session.get(strict_server.url + "/redirect/307?to=/statistics", timeout=30)

    shown = [repr(one) for one in (session.auth, response.request.hooks, response.request, response)]
    assert not [one for one in shown if tokens.access in one or tokens.extra["csrf_access_token"] in one]


# What the caller's session does


@both
def test_the_callers_hooks_run_once_on_what_came_in_the_end(
    strict_server: StrictServer, library: Library
) -> None:
    credentials = credentials_for(strict_server)
    strict_server.expire()
    told: list[tuple[str, int]] = []

    def hook(name: str) -> Any:
        def note(response: Any, **_: Any) -> None:
            response.raise_for_status()
            told.append((name, response.status_code))

        return note

    with library.session(credentials) as session:
        response = session.get(strict_server.url + "/a", hooks={"response": [hook("one"), hook("two")]})
        session.hooks["response"].append(hook("session"))
        strict_server.expire()
        session.get(strict_server.url + "/b")

    assert response.status_code == 200
    assert told == [("one", 200), ("two", 200), ("session", 200)]
    assert strict_server.stats.refreshes == 2


@both
def test_a_replayed_response_has_a_time_and_a_history_of_what_was_sent(
    strict_server: StrictServer, library: Library
) -> None:
    credentials = credentials_for(strict_server)
    before = credentials.tokens
    strict_server.expire()

    with library.session(credentials) as session:
        response = session.post(strict_server.url + "/a", json={"a": 1}, timeout=30)

    assert before is not None
    assert credentials.tokens is not None
    assert response.elapsed > timedelta(0)
    (refused,) = response.history
    assert (refused.status_code, response.status_code) == (401, 200)
    assert refused.json()["error"]
    assert refused.request.headers["Authorization"] == "Bearer " + before.access
    assert response.request.headers["Authorization"] == "Bearer " + credentials.tokens.access
    assert refused.request.body == response.request.body


@both
def test_cookies_that_came_with_the_refusal_and_with_the_answer_are_in_the_jar(
    strict_server: StrictServer, library: Library
) -> None:
    credentials = credentials_for(strict_server)
    strict_server.fail_api(401, headers={"Set-Cookie": "route=a; Path=/"})
    strict_server.fail_api(200, headers={"Set-Cookie": "seen=b; Path=/"})

    with library.session(credentials) as session:
        assert session.get(strict_server.url + "/a", timeout=30).status_code == 200
        assert dict(session.cookies) == {"route": "a", "seen": "b"}


@both
def test_a_replay_is_sent_as_its_request_was(library: Library) -> None:
    credentials = credentials_of()
    with library.session(credentials, verify="/a/ca.pem", cert="/a/cert.pem") as session:
        scripted = Scripted(library, superseding(credentials)).on(session)
        proxies = {"https": "http://proxy.example"}
        session.get(URL + "/a", timeout=(1.5, 2.5), stream=True, proxies=proxies)

    first, second = ({name: how[name] for name in how if name not in OF_NIQUESTS} for how in scripted.how)
    assert first == second
    assert (second["timeout"], second["verify"], second["cert"]) == ((1.5, 2.5), "/a/ca.pem", "/a/cert.pem")
    assert (second["stream"], second["proxies"]) == (True, proxies)


@both
def test_a_refusal_whose_body_breaks_off_gives_its_connection_back_and_is_replayed(library: Library) -> None:
    credentials = credentials_of()
    closed: list[Any] = []
    with library.session(credentials) as session:
        scripted = Scripted(library, superseding(credentials)).on(session)
        scripted.breaks_off, scripted.closed = 401, closed
        assert session.get(URL + "/a").status_code == 200

    assert closed == [401]


@both
def test_a_request_that_was_prepared_may_be_sent_again_and_again(
    strict_server: StrictServer, library: Library
) -> None:
    credentials = credentials_for(strict_server)
    with library.session(credentials) as session:
        request = session.prepare_request(library.lib.Request("POST", strict_server.url + "/a", json={}))
        for _ in range(3):
            strict_server.expire()
            assert session.send(request, timeout=30).status_code == 200

    assert strict_server.stats.refreshes == 3


@both
def test_a_request_that_was_prepared_is_not_sent_again_under_another_sign_in(
    strict_server: StrictServer, library: Library
) -> None:
    credentials = credentials_for(strict_server)
    with library.session(credentials) as session:
        request = session.prepare_request(library.lib.Request("POST", strict_server.url + "/a", json={}))
        assert session.send(request, timeout=30).status_code == 200
        credentials.sign_in(strict_server.sign_in("bob"))
        strict_server.revoke("alice")
        with pytest.raises(keyturn.SessionEnded) as raised:
            session.send(request, timeout=30)

    assert raised.value.reason == "replaced"
    assert [one.status for one in strict_server.seen if one.path == "/a"][:1] == [200]
    assert 200 not in [one.status for one in strict_server.seen if one.path == "/a"][1:]


@both
def test_a_redirect_that_the_caller_follows_by_hand_is_dressed_too(
    strict_server: StrictServer, library: Library
) -> None:
    credentials = cookie_credentials(strict_server)
    with library.session(credentials) as session:
        response = session.post(
            strict_server.url + "/redirect/307?to=/orders", json={}, allow_redirects=False, timeout=30
        )
        assert response.status_code == 307
        assert session.send(response.next, timeout=30).status_code == 200

    assert strict_server.stats.refused == 0


@both
def test_a_refused_request_that_cannot_be_sent_again_leaves_no_connection_behind(
    strict_server: StrictServer, library: Library
) -> None:
    credentials = credentials_for(strict_server)
    strict_server.expire()
    with library.session(credentials) as session:
        with pytest.raises(keyturn.NotReplayable) as raised:
            session.post(strict_server.url + "/upload", data=iter([b"once"]), timeout=30, stream=True)
        assert session.get(strict_server.url + "/a", timeout=30).status_code == 200

    assert (raised.value.method, raised.value.status) == ("POST", 401)
    assert [one.body for one in strict_server.seen if one.path == "/upload"] == [b"once"]


@both
def test_a_file_that_was_closed_in_the_meantime_is_not_sent_again(
    strict_server: StrictServer, library: Library, tmp_path: Any
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    credentials = credentials_for(strict_server)
    strict_server.expire()
    with library.session(credentials) as session, (tmp_path / "file").open("rb") as file:
        request = session.prepare_request(library.lib.Request("POST", strict_server.url + "/a", data=file))
        request.body = _Closing(file)
        with pytest.raises(keyturn.NotReplayable):
            session.send(request, timeout=30)


class _Closing:
    """A file that closes when it has been read, as some wrappers of uploads do."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.tell, self.seek, self.seekable = file.tell, file.seek, file.seekable

    def read(self, size: int = -1) -> bytes:
        content: bytes = self._file.read(size) if not self._file.closed else b""
        if not content:
            self._file.close()
        return content

    def __iter__(self) -> Any:
        while chunk := self.read(3):
            yield chunk


# Redirects, and where tokens may go


@both
def test_a_change_to_https_keeps_the_token_where_both_are_named(library: Library) -> None:
    secure, plain = "https://api.example/a", "http://api.example/a"
    for origins, expected in (
        (["http://api.example"], [True, False]),
        (["http://api.example", "https://api.example"], [True, True]),
    ):
        with library.session(credentials_of(*origins)) as session:
            scripted = redirecting(library, session, secure)
            session.get(plain)
        assert [url for url, _ in scripted.sent] == [plain, secure]
        assert ["Authorization" in headers for _, headers in scripted.sent] == expected


@both
@pytest.mark.parametrize("carrier", [None, keyturn.client.Cookies()], ids=["bearer", "cookies"])
@pytest.mark.parametrize(
    "target",
    [
        "https://other.example/",
        "https://api.example:8443/",
        "http://api.example/",
        "//other.example/x",
        "https://api.example.other.example/",
        "https://api.example@other.example/",
        "https://other.example/#@api.example/",
        "https://\u0430pi.example/",
    ],
)
def test_nothing_of_ours_travels_to_another_origin(library: Library, carrier: Any, target: str) -> None:
    with library.session(credentials_of(carrier=carrier)) as session:
        session.cookies.set("access_token_cookie", "the-jars", domain="", path="/")
        session.cookies.set("theme", "dark", domain="", path="/")
        scripted = redirecting(library, session, target)
        # What the library makes of such a target is its own affair.
        with contextlib.suppress(library.lib.exceptions.RequestException, UnicodeError):
            session.get(URL + "/a", headers={"Host": "api.example"})

    (_, first), *others = scripted.sent
    assert "an-access-token" in str(first)
    for _, headers in others:
        assert not {"Authorization", "X-CSRF-TOKEN"} & set(headers)
        assert "an-access-token" not in str(headers)
        assert "a-csrf-value" not in str(headers)
        if carrier is not None:
            assert headers.get("Cookie") in {"theme=dark", None}


@both
def test_the_callers_own_headers_for_another_origin_are_left_alone(library: Library) -> None:
    with library.session(credentials_of(carrier=keyturn.client.Cookies())) as session:
        scripted = redirecting(library, session, "https://other.example/b")
        own = {"Authorization": "Basic x", "X-CSRF-TOKEN": "mine"}
        session.get("https://other.example/a", headers=own, cookies={"theme": "dark"})

    for _, headers in scripted.sent:
        assert {name: headers.get(name) for name in own} == own
        assert headers["Cookie"] == "theme=dark"


@both
def test_who_comes_from_another_origin_gets_tokens_at_ours(library: Library) -> None:
    for carrier in (None, keyturn.client.Cookies()):
        with library.session(credentials_of(carrier=carrier)) as session:
            scripted = redirecting(library, session, URL + "/a")
            session.get("https://other.example/")
        (_, there), (_, here) = scripted.sent
        assert "an-access-token" not in str(there)
        if carrier is not None:  # a header the library takes out itself, when it leaves a host
            assert "an-access-token" in str(here)


@both
def test_tokens_go_on_from_one_of_our_origins_to_another(
    strict_server: StrictServer, library: Library
) -> None:
    localhost = strict_server.url.replace("127.0.0.1", "localhost")
    credentials = credentials_for(strict_server, origins=[strict_server.url, localhost])
    with library.session(credentials) as session:
        path = f"/redirect/307?to={localhost}/orders"
        assert session.post(strict_server.url + path, json={"a": 1}, timeout=30).status_code == 200

    assert strict_server.stats.refreshes == 0
    assert strict_server.seen[-1].body.replace(b" ", b"") == b'{"a":1}'


@both
def test_our_cookies_take_the_place_of_the_jars_and_leave_the_others_be(
    strict_server: StrictServer, library: Library
) -> None:
    credentials = cookie_credentials(strict_server)
    tokens = credentials.tokens
    assert tokens is not None
    with library.session(credentials) as session:
        session.cookies.set("theme", "dark")
        session.cookies.set("access_token_cookie", "an-old-one")
        response = session.get(strict_server.url + "/redirect/307?to=/statistics", timeout=30)
        assert response.status_code == 200
        assert dict(session.cookies)["access_token_cookie"] == "an-old-one"

    for seen in strict_server.seen:
        assert sorted(pair.partition("=")[0] for pair in seen.headers["cookie"].split("; ")) == [
            "access_token_cookie",
            "csrf_access_token",
            "theme",
        ]
        assert f"access_token_cookie={tokens.access}" in seen.headers["cookie"]


@both
def test_a_sign_out_between_two_hops_keeps_the_next_one_at_home(library: Library) -> None:
    credentials = credentials_of(carrier=keyturn.client.Cookies())

    def answer(request: Any) -> tuple[int, dict[str, str]]:
        if request.url.endswith("/a"):
            credentials.sign_out()
            return 307, {"Location": "/b"}
        return 200, {}

    with library.session(credentials) as session:
        scripted = Scripted(library, answer).on(session)
        with pytest.raises(keyturn.SessionEnded):
            session.get(URL + "/a")

    assert len(scripted.sent) == 1


# Pairs that come with an answer


@both
def test_a_pair_in_a_body_is_adopted_and_the_body_is_there_for_the_caller(library: Library) -> None:
    names = {"access": "session.access", "refresh": "session.refresh"}
    credentials = credentials_of(carrier=Bearer(adopt=InBody(names)))
    body = b'{"session": {"access": "newer", "refresh": "r2"}, "data": 1}'
    with library.session(credentials) as session:
        scripted = Scripted(library, lambda _: (200, {}))
        scripted.content = body
        scripted.on(session)
        assert session.get(URL + "/a").json()["data"] == 1

    assert credentials.tokens is not None
    assert (credentials.tokens.access, credentials.tokens.generation) == ("newer", 1)


@both
def test_a_request_that_failed_is_not_waited_for_for_long(
    strict_server: StrictServer, library: Library
) -> None:
    strict_server.configure(renews=True)
    names = {"access": "X-Access-Token", "refresh": "X-Refresh-Token", "expires_in": "X-Expires-In"}
    credentials = credentials_for(strict_server, carrier=Bearer(adopt=names))
    with library.session(credentials) as session:
        for _ in range(3):
            strict_server.drop_api()
            with pytest.raises(library.lib.exceptions.ConnectionError):
                session.post(strict_server.url + "/a", data=b"x", timeout=30)
        strict_server.expire()
        begun = time.monotonic()
        assert session.get(strict_server.url + "/b", timeout=30).status_code == 200

    assert time.monotonic() - begun < 5.0  # an exchange may take 10 s, and so may the wait for others
    assert strict_server.stats.reuses == 0
