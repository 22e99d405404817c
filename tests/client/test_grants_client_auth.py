"""How a client proves itself: at a token end point that demands it, and by what it sends."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

import keyturn
from keyturn.client import grants
from keyturn.testing import StrictServer
from keyturn.tokens import jwt_claims

from .end_point import OLD, URL, Server, buy

SECRET = "hush: 100% ünlike+that&"
EC, RSA, ED = ECKey.generate_key("P-256"), RSAKey.generate_key(2048), OKPKey.generate_key("Ed25519")
KEYS: dict[str, ECKey | RSAKey | OKPKey] = {"ES256": EC, "RS256": RSA, "EdDSA": ED}
PEM = EC.as_pem(private=True).decode()
ANY_KEY = pytest.mark.parametrize("algorithm", KEYS)
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def pem(key: ECKey | RSAKey | OKPKey, *, private: bool = True) -> str:
    return key.as_pem(private=private).decode()


def demand(server: StrictServer, method: str, key: ECKey | RSAKey | OKPKey = EC) -> None:
    """Have the server take one client only, and that by one method."""
    public = json.dumps(key.as_dict(private=False))
    server.configure(client_auth=method, client_id="app", client_secret=SECRET, client_key=public)


def oauth2(server: StrictServer, **options: Any) -> grants.OAuth2:
    return grants.OAuth2(server.url + "/token", client_id="app", **options)


def client_credentials(server: StrictServer, **options: Any) -> grants.ClientCredentials:
    return grants.ClientCredentials(server.url + "/token", client_id="app", **options)


WAYS: dict[str, dict[str, Any]] = {
    "none": {"client_auth": "none"},
    "client_secret_basic": {"client_secret": SECRET},
    "client_secret_post": {"client_secret": SECRET, "client_auth": "client_secret_post"},
    "private_key_jwt": {"client_auth": grants.PrivateKeyJWT(PEM)},
}


# At a server that demands it


@pytest.mark.parametrize("method", WAYS)
@pytest.mark.parametrize("make", [oauth2, client_credentials])
def test_a_token_end_point_that_demands_a_method_gets_it_with_every_request(
    strict_server: StrictServer, make: Callable[..., grants.Grant], method: str
) -> None:
    demand(strict_server, method)
    grant, tokens = make(strict_server, **WAYS[method]), strict_server.sign_in()

    tokens = buy(grant, tokens)
    buy(grant, tokens)

    assert strict_server.stats.refreshes == 2
    assert {one.status for one in strict_server.seen} == {200}


@pytest.mark.parametrize("method", WAYS)
@pytest.mark.parametrize("used", WAYS)
def test_a_method_that_the_end_point_does_not_take_is_a_misconfiguration_that_spends_nothing(
    strict_server: StrictServer, method: str, used: str
) -> None:
    if used == method:
        return
    demand(strict_server, method)
    tokens = strict_server.sign_in()

    with pytest.raises(keyturn.RefreshMisconfigured) as caught:
        buy(oauth2(strict_server, **WAYS[used]), tokens)

    assert (caught.value.status, caught.value.error) == (401, "invalid_client")
    assert strict_server.stats.rotations == 0


@pytest.mark.parametrize("method", WAYS)
def test_the_same_proof_goes_to_the_revocation_end_point(strict_server: StrictServer, method: str) -> None:
    demand(strict_server, method)
    tokens = strict_server.sign_in()
    grant = oauth2(strict_server, **WAYS[method], revoke_url=strict_server.url + "/revoke")

    asyncio.run(grant.revoke(tokens))

    assert not strict_server.alive(tokens)


@ANY_KEY
def test_an_assertion_is_signed_by_the_kind_of_key(strict_server: StrictServer, algorithm: str) -> None:
    key = KEYS[algorithm]
    demand(strict_server, "private_key_jwt", key)

    auth = grants.PrivateKeyJWT(pem(key))

    assert auth.algorithm == algorithm
    assert buy(oauth2(strict_server, client_auth=auth), strict_server.sign_in()).access


def test_an_assertion_signed_by_another_key_is_refused(strict_server: StrictServer) -> None:
    demand(strict_server, "private_key_jwt")
    stranger = grants.PrivateKeyJWT(pem(ECKey.generate_key("P-256")))

    with pytest.raises(keyturn.RefreshMisconfigured):
        buy(oauth2(strict_server, client_auth=stranger), strict_server.sign_in())


# What is sent


def form_of(**options: Any) -> dict[str, str]:
    server = Server()
    buy(grants.OAuth2(URL, client_id="app", http=server.http, **options))
    return server.form


def test_a_secret_goes_in_the_form_where_that_is_asked_for_and_nowhere_else() -> None:
    server = Server()

    buy(
        grants.OAuth2(
            URL, client_id="app", client_secret=SECRET, client_auth="client_secret_post", http=server.http
        )
    )

    assert (server.form["client_id"], server.form["client_secret"]) == ("app", SECRET)
    assert "authorization" not in server.request.headers


def test_an_assertion_says_what_rfc_7523_3_asks_for_by_the_clock_of_the_credentials() -> None:
    server = Server()
    auth = grants.PrivateKeyJWT(PEM, kid="key-1", lifetime=timedelta(seconds=30))
    grant = grants.OAuth2(URL, client_id="app", client_auth=auth, http=server.http)

    asyncio.run(grant.exchange(OLD, grants.Wire(clock=lambda: 1_000.9)))

    form = server.form
    assert form["client_assertion_type"] == ASSERTION
    assert form["client_id"] == "app"
    assert "client_secret" not in form
    token = jwt.decode(form["client_assertion"], EC, algorithms=["ES256"])
    assert token.header == {"typ": "JWT", "alg": "ES256", "kid": "key-1"}
    jti = token.claims.pop("jti")
    assert token.claims == {"iss": "app", "sub": "app", "aud": URL, "iat": 1000, "exp": 1030}
    assert len(str(jti)) >= 16


def test_each_request_has_an_assertion_of_its_own_for_the_audience_that_was_named() -> None:
    auth = grants.PrivateKeyJWT(PEM, audience="https://id.example")

    one, other = (jwt_claims(form_of(client_auth=auth)["client_assertion"]) for _ in range(2))

    assert one["aud"] == other["aud"] == "https://id.example"
    assert one["jti"] != other["jti"]
    assert one["iat"] == pytest.approx(time.time(), abs=5)


@pytest.mark.parametrize(
    ("key", "options", "algorithm"),
    [
        (PEM.encode(), {}, "ES256"),
        (EC.as_dict(private=True), {}, "ES256"),
        (pem(ECKey.generate_key("P-384")), {}, "ES384"),
        (pem(ECKey.generate_key("P-521")), {}, "ES512"),
        (pem(RSA), {"algorithm": "PS256"}, "PS256"),
        (pem(ED), {"algorithm": "Ed25519"}, "Ed25519"),
        (ED.as_dict(private=True), {}, "EdDSA"),
    ],
)
def test_a_key_may_be_pem_or_a_jwk_and_signs_as_it_can(
    key: str | bytes | Mapping[str, object], options: dict[str, str], algorithm: str
) -> None:
    auth = grants.PrivateKeyJWT(key, **options)  # type: ignore[arg-type]

    assert auth.algorithm == algorithm
    head = form_of(client_auth=auth)["client_assertion"].partition(".")[0]
    assert json.loads(base64.urlsafe_b64decode(head + "=="))["alg"] == algorithm


def test_a_jwk_brings_its_own_name() -> None:
    jwk = EC.as_dict(private=True) | {"kid": "from the jwk"}

    assert grants.PrivateKeyJWT(jwk).kid == "from the jwk"
    assert grants.PrivateKeyJWT(jwk, kid="mine").kid == "mine"


def test_a_client_auth_of_one_s_own_is_asked_before_each_request() -> None:
    asked: list[tuple[str, str, float]] = []

    class FromAFile:
        def prove(self, client_id: str, token_url: str, now: float) -> grants.Proof:
            asked.append((client_id, token_url, now))
            return grants.Proof(
                {"X-Proof": "1"}, {"client_assertion": "from-a-file"}, secrets=("from-a-file",)
            )

    server = Server(400, {"error": "invalid_client", "error_description": "from-a-file is not an assertion"})
    with pytest.raises(keyturn.RefreshMisconfigured) as caught:
        buy(grants.OAuth2(URL, client_id="app", client_auth=FromAFile(), http=server.http))

    assert server.form["client_assertion"] == "from-a-file"
    assert server.request.headers["x-proof"] == "1"
    assert [(client_id, url) for client_id, url, _ in asked] == [("app", URL)]
    assert caught.value.error_description is None


def test_a_client_auth_that_fails_has_sent_nothing_and_is_told_by_its_place() -> None:
    class Broken:
        def prove(self, client_id: str, token_url: str, now: float) -> grants.Proof:
            raise OSError("no such file: /run/secret")

    server = Server()
    with pytest.raises(keyturn.RefreshMisconfigured, match="could not be prepared: OSError") as caught:
        buy(grants.OAuth2(URL, client_id="app", client_auth=Broken(), http=server.http))

    assert "/run/secret" not in str(caught.value)
    assert not server.requests


def test_what_is_asked_for_beside_the_tokens_goes_in_the_form() -> None:
    server = Server()

    buy(
        grants.OAuth2(
            URL,
            client_id="app",
            scope="read write",
            resource=["https://api.example/a", "urn:example:b"],
            audience="https://api.example",
            params={"organization": "org_1"},
            http=server.http,
        )
    )

    assert httpx2.QueryParams(server.request.content.decode()).multi_items() == [
        ("grant_type", "refresh_token"),
        ("organization", "org_1"),
        ("scope", "read write"),
        ("audience", "https://api.example"),
        ("resource", "https://api.example/a"),
        ("resource", "urn:example:b"),
        ("refresh_token", "old-refresh"),
        ("client_id", "app"),
    ]


# Wrong combinations, and what must not be shown

Auth: Any = grants.PrivateKeyJWT
WRONG: list[tuple[str, Callable[[], object]]] = [
    ("client_id", lambda: grants.OAuth2(URL, client_secret="s")),
    ("client_id", lambda: grants.OAuth2(URL, client_auth="none")),
    ("client_id", lambda: grants.OAuth2(URL, client_auth=Auth(PEM))),
    ("client_secret", lambda: grants.OAuth2(URL, client_id="a", client_auth="client_secret_basic")),
    ("client_secret", lambda: grants.OAuth2(URL, client_id="a", client_auth="client_secret_post")),
    ("client_secret", lambda: grants.OAuth2(URL, client_id="a", client_secret="")),
    ("none", lambda: grants.OAuth2(URL, client_id="a", client_secret="s", client_auth="none")),
    ("not both", lambda: grants.OAuth2(URL, client_id="a", client_secret="s", client_auth=Auth(PEM))),
    ("client_auth is", lambda: grants.OAuth2(URL, client_id="a", client_auth="tls")),  # type: ignore[arg-type]
    ("client_auth is", lambda: grants.OAuth2(URL, client_id="a", client_auth=Auth)),
    ("client_auth is", lambda: grants.OAuth2(URL, client_id="a", client_auth=7)),  # type: ignore[arg-type]
    ("string", lambda: grants.OAuth2(URL, client_id=7)),  # type: ignore[arg-type]
    ("client_id", lambda: grants.ClientCredentials(URL, client_id=None, client_secret="s")),  # type: ignore[arg-type]
    ("client_secret", lambda: grants.ClientCredentials(URL, client_id="a")),
    ("audience", lambda: grants.OAuth2(URL, audience=["a"])),  # type: ignore[arg-type]
    ("resource", lambda: grants.OAuth2(URL, resource="api")),
    ("resource", lambda: grants.OAuth2(URL, resource="https://api.example/#part")),
    ("resource", lambda: grants.OAuth2(URL, resource="https://[")),
    ("resource", lambda: grants.OAuth2(URL, resource=[])),
    ("resource", lambda: grants.OAuth2(URL, resource=7)),  # type: ignore[arg-type]
    ("resource", lambda: grants.OAuth2(URL, resource=["https://a", None])),  # type: ignore[list-item]
    ("params", lambda: grants.OAuth2(URL, params="a=b")),  # type: ignore[arg-type]
    ("params", lambda: grants.OAuth2(URL, params={"a": 1})),  # type: ignore[dict-item]
    ("unlike client_secret", lambda: grants.OAuth2(URL, params={"client_secret": "s"})),
    ("private key", lambda: Auth(pem(EC, private=False))),
    ("private key", lambda: Auth(EC.as_dict(private=False))),
    ("private key", lambda: Auth(OctKey.generate_key().as_dict(private=True))),
    ("private key", lambda: Auth("-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----")),
    ("private key", lambda: Auth("")),
    ("private key", lambda: Auth(None)),
    ("private key", lambda: Auth({"kty": "EC"})),
    ("private key", lambda: Auth(RSA.as_pem(private=True, password="locked"))),
    ("cannot sign", lambda: Auth(PEM, algorithm="RS256")),
    ("cannot sign", lambda: Auth(PEM, algorithm="ES384")),
    ("cannot sign", lambda: Auth(EC.as_dict(private=True) | {"use": "enc"})),
    ("algorithm must be", lambda: Auth(PEM, algorithm="HS256")),
    ("algorithm must be", lambda: Auth(PEM, algorithm="none")),
    ("curve", lambda: Auth(pem(ECKey.generate_key("secp256k1")))),
    ("curve", lambda: Auth(pem(OKPKey.generate_key("X25519")))),
    ("string", lambda: Auth(PEM, kid=7)),
    ("lifetime", lambda: Auth(PEM, lifetime=60)),
    ("lifetime", lambda: Auth(PEM, lifetime=timedelta(0))),
]


@pytest.mark.parametrize(
    ("says", "make"), [pytest.param(*one, id=f"{i}-{one[0]}") for i, one in enumerate(WRONG)]
)
def test_what_does_not_go_together_is_refused_at_once_and_named(
    says: str, make: Callable[[], object]
) -> None:
    with pytest.raises(keyturn.ConfigurationError, match=says):
        make()


def test_a_key_that_cannot_be_read_is_not_quoted() -> None:
    text = PEM.replace("\n", "?")

    with pytest.raises(keyturn.ConfigurationError) as caught:
        grants.PrivateKeyJWT(text)

    lines = [line for line in PEM.splitlines() if not line.startswith("-")]
    shown = f"{caught.value!r} {caught.value.__cause__!r}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert not any(line[:12] in shown for line in lines)


def test_nothing_that_proves_a_client_is_shown_by_its_repr() -> None:
    auth = grants.PrivateKeyJWT(PEM, kid="key-1")
    proof = auth.prove("app", URL, 0.0)
    secret = grants.OAuth2(URL, client_id="app", client_secret="hush-hush-hush", params={"pin": "hush"})

    assert repr(auth) == "<PrivateKeyJWT ES256 key-1>"
    assert repr(secret) == f"<OAuth2 {URL}>"
    assert proof.form["client_assertion"] not in f"{proof!r} {proof}"
    assert "hush" not in f"{secret._auth!r}"


def test_without_its_extra_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "joserfc"]:
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(keyturn.errors.MissingExtra, match=r"pip install 'keyturn\[private-key-jwt\]'"):
        grants.PrivateKeyJWT(PEM)
