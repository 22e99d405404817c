"""Origins: where tokens go, and every look-alike where they do not."""

from __future__ import annotations

import time
from typing import Any

import httpx
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keyturn
import keyturn.client.httpx
import keyturn.client.httpx2
from keyturn.client import grants
from keyturn.client.origins import parse_origins

LIBRARIES = pytest.mark.parametrize(
    ("lib", "adapter"),
    [
        pytest.param(httpx2, keyturn.client.httpx2, id="httpx2"),
        pytest.param(httpx, keyturn.client.httpx, id="httpx"),
    ],
)


def takes_the_token(lib: Any, adapter: Any, origin: str, url: str) -> bool:
    """Tell whether a request to `url` carries the token of credentials that serve `origin`."""
    credentials = keyturn.Credentials(
        grants.OAuth2("https://id.example/token"),
        tokens=keyturn.Tokens("access", "refresh", time.time() + 3600),
        origins=[origin],
    )
    seen: list[Any] = []

    def answer(request: Any) -> Any:
        seen.append(request.headers.get("authorization"))  # the hop gives it up when it is over
        return lib.Response(200)

    adapter.Transport(credentials, lib.MockTransport(answer)).handle_request(lib.Request("GET", url))
    return seen == ["Bearer access"]


@LIBRARIES
@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("https://api.example", "https://api.example"),
        ("https://api.example", "https://api.example/a/b?c=d#e"),
        ("https://api.example/", "https://api.example/a"),
        ("https://api.example", "https://api.example:443/"),
        ("https://api.example:443", "https://api.example/"),
        ("http://api.example", "http://api.example:80/"),
        ("http://api.example:80", "http://api.example/"),
        ("http://api.example:8080", "http://api.example:8080/"),
        ("https://API.Example", "https://api.example/"),
        ("HTTPS://api.example", "https://API.EXAMPLE/"),
        ("https://b\u00fccher.example", "https://xn--bcher-kva.example/"),
        ("https://xn--bcher-kva.example", "https://b\u00fccher.example/"),
        ("https://B\u00dcCHER.example", "https://b\u00fccher.example/"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000/"),
        ("http://[::1]:5000", "http://[::1]:5000/"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]:443/"),
        ("http://localhost", "http://localhost/"),
        ("http://api_internal", "http://api_internal/"),
        ("https://api.example", "https://somebody@api.example/"),  # the user's own business; the host is ours
    ],
)
def test_a_request_to_the_origin_however_it_is_spelt_takes_the_token(
    lib: Any, adapter: Any, origin: str, url: str
) -> None:
    assert takes_the_token(lib, adapter, origin, url)


@LIBRARIES
@pytest.mark.parametrize(
    "url",
    [
        "http://api.example/",
        "https://api.example:8443/",
        "https://api.example:80/",
        "http://api.example:443/",
        "https://evil.example/",
        "https://evil.example/https://api.example/",
        "https://evil.example/?https://api.example",
        "https://evil.example/#https://api.example",
        "https://api.example@evil.example/",
        "https://api.example:443@evil.example/",
        "https://api.example%40evil.example/",
        "https://api.example%2Fevil.example/",
        "https://api.example.evil.example/",
        "https://notapi.example/",
        "https://api.example.",  # another origin to a browser too
        "https://sub.api.example/",
        "https://example/",
        "https://\u0430pi.example/",  # a Cyrillic letter
        "https://api\u3002example.evil.example/",  # an ideographic full stop
        "https://127.0.0.1/",
        "https://[::1]/",
        "ws://api.example/",
        "wss://api.example/",
        "ftp://api.example/",
    ],
)
def test_a_request_to_any_other_origin_however_like_ours_takes_no_token(
    lib: Any, adapter: Any, url: str
) -> None:
    assert not takes_the_token(lib, adapter, "https://api.example", url)


@LIBRARIES
@settings(deadline=None, max_examples=150)
@given(
    scheme=st.sampled_from(["https", "http", "HTTPS"]),
    before=st.sampled_from(["", "a", "api.example", "user", "user:pass"])
    | st.text("ab.:%/\\?#@-", max_size=5),
    between=st.sampled_from(["@", ".", "", ":", "%40", "/", "?", "#", "\\", ";", "%2f", ":443@", "\u3002"]),
    after=st.sampled_from(
        ["evil.example", "api.example", "api.example.", "api.example:443", "api.example:80"]
    ),
    path=st.sampled_from(["", "/", "/api.example", "/@api.example", "?@api.example", "#@api.example"]),
)
def test_whatever_is_put_together_only_our_scheme_host_and_port_take_the_token(
    lib: Any, adapter: Any, scheme: str, before: str, between: str, after: str, path: str
) -> None:
    url = f"{scheme}://{before}{between}{after}{path}"
    try:
        parsed = lib.URL(url)
        ours = (parsed.scheme, parsed.raw_host) == ("https", b"api.example") and parsed.port in (None, 443)
    except lib.InvalidURL:
        return

    assert takes_the_token(lib, adapter, "https://api.example", url) == ours


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "api.example",
        "//api.example",
        "api.example:443",
        "https:api.example",
        "https:/api.example",
        "https://",
        "https:///path",
        "https://:443",
        "ftp://api.example",
        "wss://api.example",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "null",
        "*",
        "https://*",
        "https://*.example",
        "https://api.example/v1",
        "https://api.example//",
        "https://api.example/?a=b",
        "https://api.example?a=b",
        "https://api.example#a",
        "https://api.example/#a",
        "https://user@api.example",
        "https://user:word@api.example",
        "https://api.example@evil.example",
        "https://api.example\\@evil.example",
        "https://evil.example\\.api.example",
        "https://api.example%40evil.example",
        "https://api.example%00.evil.example",
        "https://api.example;evil",
        "https://api.example,https://other.example",
        "https://api.example https://other.example",
        " https://api.example",
        "https://api.example ",
        "https://api.example\n",
        "https://api.example\r\nX: y",
        "https://api\x00.example",
        "https://api.example:99999",
        "https://api.example:0",
        "https://api.example:-1",
        "https://api.example:x",
        "https://api.example:443:443",
        "https://[::1",
        "https://::1",
        "https://[api.example]",
        "https://..",
        "https://a..b",
        "https://" + "a" * 70_000,
        "https://\u2100.example",
        "https://\ud800.example",
    ],
    ids=lambda text: ascii(text)[:50],
)
def test_a_text_that_names_no_origin_or_one_and_more_is_refused(text: str) -> None:
    with pytest.raises(keyturn.ConfigurationError):
        parse_origins([text])
    with pytest.raises(keyturn.ConfigurationError):
        parse_origins(["https://api.example", text])


def test_a_plain_string_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(keyturn.ConfigurationError, match=r"origins=\['https://api\.example'\]"):
        parse_origins("https://api.example")


def test_no_origin_at_all_is_refused_with_an_example() -> None:
    with pytest.raises(keyturn.ConfigurationError, match=r"origins=\['https://"):
        parse_origins([])


@pytest.mark.parametrize(
    "origins", [None, 5, b"https://api.example", [None], [5], [b"https://api.example"], [[]]], ids=repr
)
def test_what_is_no_list_of_texts_is_refused(origins: Any) -> None:
    with pytest.raises(keyturn.ConfigurationError):
        parse_origins(origins)


@pytest.mark.parametrize(
    "text", ["https://user:hunter2@api.example", "https://user:hun/ter2@api.example", "https://user:hunter2@"]
)
def test_the_refusal_does_not_quote_a_password(text: str) -> None:
    with pytest.raises(keyturn.ConfigurationError) as raised:
        parse_origins([text])

    shown = f"{raised.value} {raised.value.__cause__} {raised.value!r}"
    assert "hun" not in shown
    assert "ter2" not in shown


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.text(max_size=20) | st.text("htps:/.@[]a1-_%*# ", max_size=20).map("https://".__add__), max_size=2
    )
)
def test_any_texts_are_origins_or_a_configuration_error(texts: list[str]) -> None:
    try:
        origins = parse_origins(texts)
    except keyturn.ConfigurationError:
        return
    assert {scheme for scheme, *_ in origins} <= {"http", "https"}
