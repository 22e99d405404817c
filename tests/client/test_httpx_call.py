"""The short way of a request that needs no thought: taken by nearly all, and by none that it is not for."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from types import SimpleNamespace
from typing import Any

import pytest

import keyturn
from keyturn.client import Bearer, Cookies, grants
from keyturn.client.carriers import Carrier
from keyturn.client.httpx_call import embarker
from tests.kit import HOSTS, Host

API = "https://api.example"

every_host = pytest.mark.parametrize("host", HOSTS, ids=str)


def _credentials(
    carrier: Carrier | None = None, expires_in: float = 600.0, origin: str = API
) -> keyturn.Credentials:
    tokens = keyturn.Tokens("access", "refresh", time.time() + expires_in)
    grant = grants.OAuth2("https://id.example/token", client_id="tests")
    return keyturn.Credentials(grant, tokens=tokens, origins=[origin], carrier=carrier)


def _embark(host: Host, credentials: keyturn.Credentials, request: Any, *, hop: bool = False) -> Any:
    return embarker(credentials, host.lib.ByteStream, hop=hop)(request)


@every_host
@pytest.mark.parametrize(
    ("origin", "url"),
    [
        (API, API + "/statistics"),
        (API, "https://API.example:443/"),
        (API + ":443", API + "/"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/a?b=c"),
        ("http://[::1]:8000", "http://[::1]:8000/"),
        ("https://bücher.example", "https://bücher.example/"),
        ("https://bücher.example", "https://xn--bcher-kva.example/"),
    ],
)
def test_a_request_to_one_of_our_origins_embarks_with_fresh_tokens(host: Host, origin: str, url: str) -> None:
    credentials = _credentials(origin=origin)
    request = host.lib.Request("POST", url, json={"a": 1})

    assert _embark(host, credentials, request) is credentials.tokens
    assert request.headers["Authorization"] == "Bearer access"


@every_host
@pytest.mark.parametrize(
    "url",
    [
        "http://api.example/",
        "https://api.example:444/",
        "https://api.example.evil/",
        "https://evil.example/",
        "https://api.example@evil.example/",
        "/statistics",
    ],
)
def test_a_request_to_another_origin_does_not_embark(host: Host, url: str) -> None:
    request = host.lib.Request("GET", url)

    assert _embark(host, _credentials(), request) is None
    assert "Authorization" not in request.headers


@every_host
def test_what_needs_thought_does_not_embark(host: Host) -> None:
    request = host.lib.Request("GET", API)
    assert _embark(host, _credentials(expires_in=-1), request) is None
    assert _embark(host, _credentials(Cookies()), request, hop=True) is None
    assert _embark(host, _credentials(Bearer(adopt={"access": "X-Access-Token"})), request) is None

    streamed = host.lib.Request("POST", API, content=iter([b"a"]))
    assert _embark(host, _credentials(), streamed) is None
    assert not {"Authorization", "Cookie"} & {*request.headers, *streamed.headers}


@every_host
def test_a_library_that_keeps_the_parts_of_a_url_elsewhere_is_asked_for_them(host: Host) -> None:
    """The parts are private to the library: without them, a request goes the whole journey."""
    url = host.lib.URL(API)
    foreign = SimpleNamespace(scheme=url.scheme, raw_host=url.raw_host, port=url.port)
    request = SimpleNamespace(url=foreign, headers=host.lib.Headers(), stream=host.lib.ByteStream(b""))

    assert _embark(host, _credentials(), request) is None
    assert "Authorization" not in request.headers


@every_host
def test_a_hop_embarks_with_headers_of_its_own(host: Host) -> None:
    request = host.lib.Request("GET", API, headers={"Authorization": "Basic theirs", "Accept": "*/*"})
    theirs = request.headers

    assert _embark(host, _credentials(), request, hop=True) is not None
    assert request.headers is not theirs
    assert (request.headers["Authorization"], request.headers["Accept"]) == ("Bearer access", "*/*")
    assert theirs["Authorization"] == "Basic theirs"


class _Broken(Bearer):
    def attach(self, headers: MutableMapping[str, str], tokens: keyturn.Tokens) -> None:
        headers["Authorization"] = "half"
        raise RuntimeError("no")


@every_host
@pytest.mark.parametrize("fresh", [True, False])
def test_a_hop_whose_carrier_fails_leaves_the_callers_headers_alone(host: Host, fresh: bool) -> None:
    credentials = _credentials(_Broken(adopt=None if fresh else {"access": "X-Access-Token"}))
    inner = host.lib.MockTransport(lambda request: host.lib.Response(200))
    transport = host.adapter.Transport(credentials, inner)
    request = host.lib.Request("GET", API, headers={"Authorization": "Basic theirs"})
    theirs = request.headers

    with pytest.raises(RuntimeError):
        transport.handle_request(request)

    assert request.headers is theirs
    assert theirs["Authorization"] == "Basic theirs"


@every_host
def test_a_hop_sent_or_failed_gets_its_own_headers_back(host: Host) -> None:
    seen: list[str] = []

    def answer(request: Any) -> Any:
        seen.append(request.headers["Authorization"])
        if len(seen) == 2:
            raise host.lib.ConnectError("gone", request=request)
        return host.lib.Response(200)

    transport = host.adapter.Transport(_credentials(), host.lib.MockTransport(answer))
    request = host.lib.Request("GET", API)
    theirs = request.headers

    assert transport.handle_request(request).status_code == 200
    assert request.headers is theirs
    with pytest.raises(host.lib.ConnectError):
        transport.handle_request(request)

    assert request.headers is theirs
    assert seen == ["Bearer access"] * 2
    assert "Authorization" not in theirs
