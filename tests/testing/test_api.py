"""The API of the strict server: what it accepts, what it says, and when."""

from __future__ import annotations

import hashlib
import http.client
from urllib.parse import quote, urlsplit

import pytest

from keyturn.testing import StrictServer

from .wire import call, in_background, raw, refresh, results


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
def test_any_method_on_any_path_is_answered_to_a_bearer(strict_server: StrictServer, method: str) -> None:
    tokens = strict_server.sign_in()
    answer = call(strict_server, "/a/b%20c?d=e", method=method, access=tokens.access, body=b"body")
    assert answer.status == 200
    assert answer.json == {
        "path": "/a/b c",
        "method": method,
        "subject": "alice",
        "generation": 0,
        "length": 4,
        "sha256": hashlib.sha256(b"body").hexdigest(),
    }


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer x", "Bearer a.b.c", "Basic eDp5", "Bearer ä.ö.ü"]
)
def test_anything_else_is_a_401_with_a_challenge(strict_server: StrictServer, authorization: str) -> None:
    answer = call(strict_server, "/x", headers={"Authorization": authorization} if authorization else {})
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert strict_server.stats.refused == 1


def test_a_tampered_token_is_refused(strict_server: StrictServer) -> None:
    head, claims, mac = strict_server.sign_in().access.split(".")
    for forged in (f"{head}.{claims[:-1]}.{mac}", f"{head}.{claims}.", f"{head}.{claims}.{mac[:-2]}AA"):
        assert call(strict_server, "/x", access=forged).status == 401


def test_a_body_in_chunks_is_read_whole(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    parts = [b"a" * 70_000, b"b" * 5, b"c" * 100_000]
    answer = call(strict_server, "/x", method="POST", access=tokens.access, body=iter(parts))
    whole = b"".join(parts)
    assert (answer.json["length"], answer.json["sha256"]) == (len(whole), hashlib.sha256(whole).hexdigest())
    seen = strict_server.seen[0]
    assert (seen.body, seen.complete, seen.headers["transfer-encoding"]) == (whole, True, "chunked")


def test_a_refusal_comes_after_the_whole_body(strict_server: StrictServer) -> None:
    with raw(strict_server) as bare:
        bare.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        with pytest.raises(TimeoutError):
            strict_server.wait_for(timeout=0.05, api=1)
        bare.sendall(b"cd")
        assert bare.recv(4096).startswith(b"HTTP/1.1 401 ")
    assert strict_server.seen[0].body == b"abcd"


def test_an_early_refusal_comes_before_the_body_and_the_connection_goes_on(
    strict_server: StrictServer,
) -> None:
    access = strict_server.sign_in().access
    with raw(strict_server) as bare:
        bare.sendall(b"POST /x?early=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
        assert bare.recv(4096).startswith(b"HTTP/1.1 401 ")
        assert [(one.status, one.body, one.complete) for one in strict_server.seen] == [(401, b"", False)]
        bare.sendall(f"abcdGET /y HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {access}\r\n\r\n".encode())
        assert bare.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert [(one.status, one.body, one.complete) for one in strict_server.seen] == [
        (401, b"abcd", True),
        (200, b"", True),
    ]


def test_early_makes_no_difference_to_a_good_token(strict_server: StrictServer) -> None:
    access = strict_server.sign_in().access
    answer = call(strict_server, "/x?early=1", method="POST", access=access, body=b"abcd")
    assert (answer.status, answer.json["length"]) == (200, 4)


def test_a_body_cut_short_is_seen_as_such(strict_server: StrictServer) -> None:
    with raw(strict_server) as bare:
        bare.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        strict_server.wait_for(connections=1)
        bare.shutdown(1)
        assert bare.recv(4096).startswith(b"HTTP/1.1 400 ")
    seen = strict_server.seen[0]
    assert (seen.body, seen.complete, seen.status) == (b"ab", False, None)
    assert strict_server.stats.api == 0


def test_whoever_expects_a_100_is_told_to_go_on(strict_server: StrictServer) -> None:
    access = strict_server.sign_in().access.encode()
    head = b"POST /x%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
    expect = b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    with raw(strict_server) as bare:
        bare.sendall(head % (b"", access) + expect)
        assert bare.recv(4096).startswith(b"HTTP/1.1 100 ")
        bare.sendall(b"ab")
        assert bare.recv(4096).startswith(b"HTTP/1.1 200 ")
    with raw(strict_server) as bare:
        bare.sendall(head % (b"?early=1", b"x") + expect)
        answer = b""
        while part := bare.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"Connection: close" in answer


def test_a_connection_is_kept_alive_and_counted_once(strict_server: StrictServer) -> None:
    access = strict_server.sign_in().access
    connection = http.client.HTTPConnection(urlsplit(strict_server.url).netloc, timeout=30)
    for _ in range(3):
        connection.request("GET", "/x", headers={"Authorization": f"Bearer {access}"})
        assert len(connection.getresponse().read()) > 0
    connection.close()
    assert (strict_server.stats.answered, strict_server.stats.connections) == (3, 1)


def test_size_makes_the_body_longer_by_as_many_bytes(strict_server: StrictServer) -> None:
    access = strict_server.sign_in().access
    plain, longer = (call(strict_server, path, access=access) for path in ("/x", "/x?size=100000"))
    assert len(longer.body) == len(plain.body) + 100_000
    assert longer.json == plain.json


def test_delay_holds_back_the_answer_that_was_decided_on_arrival(strict_server: StrictServer) -> None:
    access = strict_server.sign_in().access
    with in_background(1) as pool:
        late = pool.submit(call, strict_server, "/x?delay=0.2", access=access)
        strict_server.wait_for(answered=1)
        strict_server.expire()
        assert late.result(timeout=30).status == 200
    seen = strict_server.seen[0]
    assert seen.answered_at is not None
    assert seen.answered_at - seen.at >= 0.2


def test_refusals_of_a_wave_are_spread_over_time(strict_server: StrictServer) -> None:
    strict_server.configure(spread=0.3, spread_over=6)
    strict_server.hold_api(6)
    with in_background(6) as pool:
        results([pool.submit(call, strict_server, "/x") for _ in range(6)])
    answered = sorted(one.answered_at or 0.0 for one in strict_server.seen)
    last = max(one.at for one in strict_server.seen)
    for k, at in enumerate(answered, start=1):
        assert at - last >= k * 0.05 - 0.001
    assert answered[-1] - answered[0] >= 0.2


def test_a_server_that_renews_gives_a_new_pair_and_kills_the_old_one(strict_server: StrictServer) -> None:
    strict_server.configure(renews=True)
    tokens = strict_server.sign_in()
    answer = call(strict_server, "/x", access=tokens.access)
    pair = answer.json["tokens"]
    assert answer.headers["X-Access-Token"] == pair["access_token"]
    assert answer.headers["X-Refresh-Token"] == pair["refresh_token"]
    assert answer.headers["X-Expires-In"] == str(pair["expires_in"]) == "60"
    assert call(strict_server, "/x", access=tokens.access).json["reason"] == "superseded"
    assert call(strict_server, "/x", access=pair["access_token"]).json["generation"] == 1
    assert (strict_server.stats.renewals, strict_server.stats.rotations) == (2, 0)
    assert refresh(strict_server, tokens.refresh).json["error"] == "invalid_grant"
    assert not strict_server.alive(tokens)


def test_of_parallel_calls_with_one_token_a_server_that_renews_answers_one(
    strict_server: StrictServer,
) -> None:
    strict_server.configure(renews=True)
    access = strict_server.sign_in().access
    strict_server.hold_api(4)
    with in_background(4) as pool:
        answers = results([pool.submit(call, strict_server, "/x", access=access) for _ in range(4)])
    assert sorted(answer.status for answer in answers) == [200, 401, 401, 401]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_goes_where_it_is_told_and_checks_no_token(
    strict_server: StrictServer, other_server: StrictServer, status: int
) -> None:
    for to in ("/x?a=b", f"{other_server.url}/y"):
        answer = call(strict_server, f"/redirect/{status}?to={quote(to, safe='')}", method="POST", body=b"x")
        assert (answer.status, answer.headers["Location"]) == (status, to)
    assert strict_server.stats.api == 0
    assert call(strict_server, "/redirect/200?to=/x").status == 400


def test_a_public_path_checks_no_token_and_tells_what_it_saw(strict_server: StrictServer) -> None:
    answer = call(strict_server, "/public/x", method="POST", access="y", headers={"X-A": "1"}, body=b"ab")
    assert (answer.status, answer.json["length"]) == (200, 2)
    assert answer.json["headers"]["authorization"] == "Bearer y"
    assert answer.json["headers"]["x-a"] == "1"
    assert strict_server.stats.api == 0


def test_every_request_is_seen_in_order_of_arrival(strict_server: StrictServer) -> None:
    access = strict_server.sign_in().access
    call(strict_server, "/a?b=c", access=access, headers={"X-Name": "v"})
    call(strict_server, "/d", method="POST", body=b"\x00\xff")
    first, second = strict_server.seen
    assert (first.method, first.path, first.query, first.status) == ("GET", "/a", "b=c", 200)
    assert first.headers["x-name"] == "v"
    assert (second.method, second.path, second.body, second.status) == ("POST", "/d", b"\x00\xff", 401)
    assert first.answered_at is not None
    assert first.at <= first.answered_at <= second.at
    assert access not in repr(first)


def test_what_is_no_http_gets_a_400(strict_server: StrictServer) -> None:
    with raw(strict_server) as bare:
        bare.sendall(b"no http at all\r\n\r\n")
        assert bare.recv(4096).startswith(b"HTTP/1.1 400 ")
