"""Access tokens: JWTs as RFC 9068 has them, and no algorithm but the key's own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import warnings
from datetime import timedelta

import jwt as pyjwt
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from joserfc.jws import JWSRegistry

from keyturn import errors
from keyturn.server import Claims, Issuer
from keyturn.server.keys import Keys

from .clock import Clock
from .conftest import SECRET, MakeIssuer

KEY = next(iter(Keys(SECRET, issuer="keyturn").derive("access token").values()))
KID = Keys(SECRET, issuer="keyturn").signing


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def header_and_claims(token: str) -> tuple[dict[str, object], dict[str, object]]:
    header, payload, _ = token.split(".")
    return tuple(json.loads(base64.urlsafe_b64decode(text + "==")) for text in (header, payload))


def signed(header: object, claims: object, key: bytes = KEY, algorithm: str = "sha256") -> str:
    text = f"{part(header)}.{part(claims)}"
    return f"{text}.{part(hmac.digest(key, text.encode(), algorithm))}"


def test_it_has_the_header_and_claims_of_rfc_9068(issuer: Issuer, clock: Clock) -> None:
    pair = issuer.sign_in("alice", claims={"role": "admin"}, client="app")
    header, claims = header_and_claims(pair.access)
    assert header == {"alg": "HS256", "typ": "at+jwt", "kid": KID}
    jti = claims.pop("jti")
    assert claims == {
        "iss": "keyturn",
        "sub": "alice",
        "aud": "keyturn",
        "client_id": "app",
        "sid": pair.sid,
        "gen": 0,
        "iat": int(clock.now),
        "exp": int(clock.now) + 900,
        "role": "admin",
    }
    assert isinstance(jti, str)
    assert len(jti) == 22


def test_every_access_token_has_an_id_of_its_own(issuer: Issuer) -> None:
    pair = issuer.sign_in("alice")
    others = {issuer.verify(issuer.refresh(pair.refresh).access).token_id for _ in range(20)}
    assert len(others) == 20


def test_other_libraries_verify_it(issuer: Issuer) -> None:
    token = issuer.sign_in("alice", claims={"name": "Zoë"}).access
    theirs = pyjwt.decode(
        token, KEY, ["HS256"], audience="keyturn", options={"verify_exp": False, "verify_iat": False}
    )
    ours = jwt.decode(token, OctKey.import_key(KEY), ["HS256"]).claims
    assert theirs == ours
    assert ours["name"] == "Zoë"


def test_what_was_signed_in_comes_out_of_verify(issuer: Issuer, clock: Clock) -> None:
    pair = issuer.sign_in("alice", claims={"role": "admin"}, client="app")
    for _ in range(2):  # new, and seen before
        claims = issuer.verify(pair.access)
        assert (claims.subject, claims.sid, claims.generation, claims.client) == ("alice", pair.sid, 0, "app")
        assert (claims.issued_at, claims.expires_at) == (int(clock.now), pair.expires_at)
        assert (claims["role"], claims.get("role"), claims.get("none"), claims.get("none", 1)) == (
            "admin", "admin", None, 1,
        )  # fmt: skip
        with pytest.raises(KeyError):
            claims["none"]


def test_the_claims_cannot_be_changed_for_who_comes_next(issuer: Issuer) -> None:
    claims = issuer.verify(issuer.sign_in("alice", claims={"role": "admin"}).access)
    with pytest.raises(TypeError):
        claims.extra["role"] = "root"  # type: ignore[index]


def test_a_list_among_the_claims_is_the_callers_own(issuer: Issuer) -> None:
    """A view that adds a role to what it got must not have added it for the next request."""
    token = issuer.sign_in("alice", claims={"roles": ["reader"], "deep": {"er": [1]}}).access
    for _ in range(3):
        claims = issuer.verify(token)
        roles, deep = claims["roles"], claims["deep"]
        assert roles == ["reader"]
        assert deep == {"er": [1]}
        assert isinstance(roles, list)
        assert isinstance(deep, dict)
        roles.append("admin")
        deep["er"].append(2)


def test_it_is_refused_from_its_exp_on_also_when_it_was_seen_before(issuer: Issuer, clock: Clock) -> None:
    seen, new = issuer.sign_in("alice"), issuer.sign_in("alice")
    clock.now = seen.expires_at - 0.001
    issuer.verify(seen.access)
    clock.now = float(seen.expires_at)
    for token in (seen.access, new.access):
        with pytest.raises(errors.TokenExpired):
            issuer.verify(token)


def test_fractions_of_a_second_are_rounded_so_that_nobody_has_less_than_was_said(
    clock: Clock, make_issuer: MakeIssuer
) -> None:
    clock.now += 0.6
    issuer = make_issuer(access_lifetime=timedelta(seconds=10))
    pair = issuer.sign_in("alice")
    assert pair.expires_in == 10
    clock.forward(9.99)
    issuer.verify(pair.access)
    clock.forward(1.01)
    with pytest.raises(errors.TokenExpired):
        issuer.verify(pair.access)


# Algorithm confusion


RIGHT: dict[str, object] = {"alg": "HS256", "typ": "at+jwt", "kid": KID}


def claims_of(issuer: Issuer) -> dict[str, object]:
    return header_and_claims(issuer.sign_in("alice").access)[1]


def test_a_token_made_by_hand_with_everything_right_is_accepted(issuer: Issuer) -> None:
    """Else the refusals below would show nothing."""
    assert issuer.verify(signed(RIGHT, claims_of(issuer))).subject == "alice"


def test_another_spelling_of_the_right_header_is_the_same(issuer: Issuer) -> None:
    turned = {"kid": KID, "typ": "at+jwt", "alg": "HS256"}
    assert issuer.verify(signed(turned, claims_of(issuer))).subject == "alice"
    with pytest.raises(errors.TokenForged):
        issuer.verify(signed(turned, claims_of(issuer), key=b"x" * 32))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_no_signature_is_no_algorithm(issuer: Issuer, algorithm: str, signature: str) -> None:
    token = f"{part(RIGHT | {'alg': algorithm})}.{part(claims_of(issuer))}.{signature}"
    with pytest.raises((errors.TokenMalformed, errors.TokenForged)):
        issuer.verify(token)


@pytest.mark.parametrize(("algorithm", "digest"), [("HS384", "sha384"), ("HS512", "sha512")])
def test_another_hmac_with_the_right_key_is_refused(issuer: Issuer, algorithm: str, digest: str) -> None:
    for name in (algorithm, "HS256"):
        token = signed(RIGHT | {"alg": name}, claims_of(issuer), algorithm=digest)
        with pytest.raises((errors.TokenMalformed, errors.TokenForged)):
            issuer.verify(token)


def test_an_rsa_signature_and_an_hmac_under_a_public_key_are_refused(issuer: Issuer) -> None:
    key = RSAKey.generate_key(2048)
    public = key.as_pem(private=False)
    claims = claims_of(issuer)
    for algorithm in ("RS256", "PS256"):
        token = jwt.encode(
            RIGHT | {"alg": algorithm},
            claims,
            key,
            registry=JWSRegistry(algorithms=[algorithm]),
            default_type=None,
        )
        with pytest.raises((errors.TokenMalformed, errors.TokenForged)):
            issuer.verify(token)
    with pytest.raises(errors.TokenForged):
        issuer.verify(signed(RIGHT, claims, key=public))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256", "kid": KID},
        {"alg": "HS256", "kid": KID, "typ": "JWT"},
        {"alg": "HS256", "kid": KID, "typ": "AT+JWT"},
        {"alg": "HS256", "kid": KID, "typ": ["at+jwt"]},
        {"alg": "HS256", "typ": "at+jwt"},
        {"alg": "HS256", "typ": "at+jwt", "kid": "AAAAAAAA"},
        {"alg": "HS256", "typ": "at+jwt", "kid": [KID]},
        {"alg": "HS256", "typ": "at+jwt", "kid": None},
        {"alg": ["HS256"], "typ": "at+jwt", "kid": KID},
        {"alg": None, "typ": "at+jwt", "kid": KID},
        {"typ": "at+jwt", "kid": KID},
        {"alg": "HS256", "typ": "at+jwt", "kid": KID, "crit": ["x"], "x": 1},
        {"alg": "HS256", "typ": "at+jwt", "kid": KID, "b64": False, "crit": ["b64"]},
        {},
        [],
        "HS256",
        None,
    ],
    ids=range(17),
)
def test_a_header_that_is_not_ours_is_refused_even_with_our_signature(issuer: Issuer, header: object) -> None:
    with pytest.raises((errors.TokenMalformed, errors.TokenForged)):
        issuer.verify(signed(header, claims_of(issuer)))


def test_a_key_that_the_token_brings_along_is_not_used(issuer: Issuer) -> None:
    own = b"the attacker's own key, 32 bytes"
    header = RIGHT | {"jwk": {"kty": "oct", "k": part(own)}, "jku": "https://evil.example/keys"}
    with pytest.raises((errors.TokenMalformed, errors.TokenForged)):
        issuer.verify(signed(header, claims_of(issuer), key=own))


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "somebody"},
        {"aud": "somebody"},
        {"aud": ["keyturn", "somebody"]},
        {"sub": None},
        {"sid": 7},
        {"gen": "0"},
        {"jti": None},
        {"iat": "now"},
        {"exp": None},
        {"exp": "9999999999"},
        {"exp": 1e300},
    ],
    ids=range(11),
)
def test_claims_of_another_service_or_shape_are_refused_even_with_our_signature(
    issuer: Issuer, change: dict[str, object]
) -> None:
    with pytest.raises(errors.TokenMalformed):
        issuer.verify(signed(RIGHT, claims_of(issuer) | change))


@pytest.mark.parametrize("payload", [[], "x", None, 7, b"{", b"\xff", b"", b"{}"], ids=range(8))
def test_a_payload_that_is_no_object_is_refused_even_with_our_signature(
    issuer: Issuer, payload: object
) -> None:
    for header in (RIGHT, dict(reversed(RIGHT.items()))):
        with pytest.raises(errors.TokenMalformed):
            issuer.verify(signed(header, payload))


def test_a_refresh_token_is_no_access_token_nor_the_other_way_round(issuer: Issuer) -> None:
    pair = issuer.sign_in("alice")
    with pytest.raises((errors.TokenMalformed, errors.TokenForged)):
        issuer.verify(pair.refresh)
    with pytest.raises(errors.TokenMalformed):
        issuer.refresh(pair.access)


def test_the_spare_bits_of_a_signature_make_no_second_token(issuer: Issuer) -> None:
    token = issuer.sign_in("alice").access
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for last in alphabet:
        if last != token[-1]:
            with pytest.raises(errors.TokenForged):
                issuer.verify(token[:-1] + last)


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "...", "a.b", "a.b.c", "\ud800.b.c", "é.b.c", "x" * 20_000, None, 7, b"a.b"],
    ids=range(12),
)
def test_what_is_no_token_is_malformed(issuer: Issuer, token: object) -> None:
    with pytest.raises(errors.TokenMalformed):
        issuer.verify(token)  # type: ignore[arg-type]


def test_a_header_nested_beyond_reason_is_malformed(issuer: Issuer) -> None:
    deep = part(b"[" * 12_000)
    with pytest.raises(errors.TokenMalformed), warnings.catch_warnings(action="error"):
        issuer.verify(f"{deep}.e30.AAAA")


def test_a_token_of_a_retired_secret_is_forged_and_of_a_listed_one_good(make_issuer: MakeIssuer) -> None:
    old, new = SECRET, "the secret that comes after the other one"
    token = make_issuer().sign_in("alice").access
    assert make_issuer(secret=[old, new], signing=new).verify(token).subject == "alice"
    with pytest.raises(errors.TokenForged):
        make_issuer(secret=new).verify(token)


def test_a_namesake_with_another_secret_and_a_stranger_with_the_same_are_refused(
    make_issuer: MakeIssuer,
) -> None:
    token = make_issuer().sign_in("alice").access
    for other in (make_issuer(secret="y" * 32), make_issuer(name="other")):
        with pytest.raises((errors.TokenForged, errors.TokenMalformed)):
            other.verify(token)


# The cache


def test_the_cache_is_bounded_and_keeps_what_is_used(make_issuer: MakeIssuer) -> None:
    issuer = make_issuer(remember=10)
    kept = issuer.sign_in("alice").access
    for _ in range(100):
        issuer.verify(issuer.sign_in("bob").access)
        issuer.verify(kept)
    seen = issuer._access_tokens._seen
    assert len(seen) <= 10
    assert seen.get(hashlib.sha256(kept.encode()).digest()) is not None


def test_the_cache_holds_no_token(issuer: Issuer) -> None:
    token = issuer.sign_in("alice").access
    issuer.verify(token)
    seen = issuer._access_tokens._seen
    assert token not in repr(vars(issuer._access_tokens)) + repr((seen._young, seen._old))


def test_a_cache_of_nothing_remembers_nothing(make_issuer: MakeIssuer) -> None:
    issuer = make_issuer(remember=0)
    token = issuer.sign_in("alice").access
    assert issuer.verify(token) == issuer.verify(token)
    assert len(issuer._access_tokens._seen) == 0
    with pytest.raises(errors.ConfigurationError):
        make_issuer(remember=-1)


def test_a_refused_token_is_not_remembered(issuer: Issuer) -> None:
    with pytest.raises(errors.TokenForged):
        issuer.verify(signed(RIGHT, claims_of(issuer), key=b"x" * 32))
    assert len(issuer._access_tokens._seen) == 0


def test_claims_are_equal_by_value(issuer: Issuer) -> None:
    claims = issuer.verify(issuer.sign_in("alice").access)
    assert isinstance(claims, Claims)
    assert claims == issuer.verify(signed(RIGHT, header_and_claims_back(claims)))


def header_and_claims_back(claims: Claims) -> dict[str, object]:
    return {
        "iss": "keyturn",
        "aud": claims.audience,
        "sub": claims.subject,
        "sid": claims.sid,
        "gen": claims.generation,
        "jti": claims.token_id,
        "iat": claims.issued_at,
        "exp": claims.expires_at,
    }
