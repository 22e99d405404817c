"""The derived refresh token: one spelling, one successor, and forgeries that die unread."""

from __future__ import annotations

import base64
import hmac
import re
import traceback

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from keyturn.errors import ConfigurationError, TokenForged, TokenMalformed
from keyturn.server.keys import Keys
from keyturn.server.refresh_tokens import HIGHEST_COUNTER, LONGEST, RefreshToken, RefreshTokens, new_sid

OLD, NEW, OTHER = "old " * 8, "new " * 8, "somebody else's secret, also long enough"
SID = "AAAAAAAAAAAAAAAAAAAAAA"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

# A loaded machine is no reason to fail.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def tokens(secret: str = OLD, issuer: str = "here") -> RefreshTokens:
    return RefreshTokens(Keys(secret, issuer=issuer), issuer=issuer)


GENUINE = tokens().make(SID, 7)


def test_a_token_says_what_it_was_made_of() -> None:
    sid = new_sid()
    for counter in (0, 1, 9, 10, HIGHEST_COUNTER):
        assert tokens().read(tokens().make(sid, counter)) == RefreshToken(sid, counter)


def test_a_counter_has_one_token_however_often_it_is_made() -> None:
    assert {tokens().make(SID, 7) for _ in range(5)} == {GENUINE}
    assert len({tokens().make(SID, counter) for counter in range(100)}) == 100


def test_the_longest_token_is_as_long_as_the_bound() -> None:
    assert len(tokens().make(new_sid(), HIGHEST_COUNTER)) == LONGEST


def test_a_sid_is_128_random_bits_in_one_spelling() -> None:
    sids = {new_sid() for _ in range(1000)}
    assert len(sids) == 1000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{21}[AQgw]", sid) for sid in sids)


def test_another_secret_and_another_issuers_name_make_a_forgery() -> None:
    for other in (tokens(OTHER), tokens(issuer="there")):
        with pytest.raises(TokenForged):
            other.read(GENUINE)
        with pytest.raises(TokenForged):
            tokens().read(other.make(SID, 7))


def test_a_mac_is_not_taken_for_another_counter_session_or_key() -> None:
    head, kid, sid, counter, mac = GENUINE.split(".")
    for parts in (
        (head, kid, sid, "8", mac),
        (head, kid, "BAAAAAAAAAAAAAAAAAAAAA", counter, mac),
        (head, "AAAAAAAA", sid, counter, mac),
        (head, kid, sid, counter, "A" * 43),
    ):
        with pytest.raises(TokenForged):
            tokens().read(".".join(parts))


MALFORMED = [
    "",
    "kt1",
    "kt1....",
    GENUINE + "\n",
    " " + GENUINE,
    GENUINE + "=",
    GENUINE.upper(),
    GENUINE.replace("kt1", "kt2"),
    GENUINE.replace(".7.", ".07."),
    GENUINE.replace(".7.", ".+7."),
    GENUINE.replace(".7.", ".-7."),
    GENUINE.replace(".7.", ".7_0."),
    GENUINE.replace(".7.", ".\u0667."),
    GENUINE.replace(".7.", ".\uff17."),
    GENUINE.replace(".7.", "..", 1),
    GENUINE.replace(".7.", ".9007199254740992."),
    GENUINE.replace(".7.", ".99999999999999999."),
    GENUINE.replace(SID, SID[:-1] + "B"),
    GENUINE.replace(SID, SID + "A"),
    GENUINE.replace(SID, "A" * 20 + "\x00A"),
    GENUINE[:-1],
    GENUINE + "A",
    GENUINE * 1000,
    "\ud800" * 40,
]


@pytest.mark.parametrize("token", MALFORMED, ids=range(len(MALFORMED)))
def test_what_does_not_have_the_shape_is_malformed(token: str) -> None:
    with pytest.raises(TokenMalformed):
        tokens().read(token)


@pytest.mark.parametrize("token", [None, 7, b"kt1", ["kt1"], GENUINE.encode(), True])
def test_what_is_not_text_is_malformed(token: object) -> None:
    with pytest.raises(TokenMalformed):
        tokens().read(token)


def test_the_spare_bits_of_the_last_character_make_no_second_token() -> None:
    """Three more spellings of the mac decode to the same bytes; none of them is the token."""
    mac = GENUINE.rpartition(".")[2]
    decoded = base64.urlsafe_b64decode(mac + "=")
    same = [
        mac[:-1] + last
        for last in ALPHABET
        if last != mac[-1] and base64.urlsafe_b64decode(mac[:-1] + last + "=") == decoded
    ]
    assert len(same) == 3
    for spelling in same:
        with pytest.raises(TokenMalformed):
            tokens().read(GENUINE.replace(mac, spelling))


@unhurried
@given(position=st.integers(0, len(GENUINE) - 1), character=st.characters())
@example(0, "K")
def test_no_character_can_be_changed(position: int, character: str) -> None:
    changed = GENUINE[:position] + character + GENUINE[position + 1 :]
    if changed != GENUINE:
        with pytest.raises((TokenMalformed, TokenForged)):
            tokens().read(changed)


@unhurried
@given(st.text(max_size=120) | st.from_regex(r"(?a)\Akt1\.[\w-]{8}\.[\w-]{22}\.\d+\.[\w-]{43}\Z"))
def test_nothing_that_was_not_made_here_is_read(token: str) -> None:
    with pytest.raises((TokenMalformed, TokenForged)):
        tokens().read(token)


@unhurried
@given(
    sid=st.binary(min_size=16, max_size=16).map(
        lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")
    ),
    counter=st.integers(0, HIGHEST_COUNTER),
)
def test_every_sid_and_counter_come_back(sid: str, counter: int) -> None:
    token = tokens().make(sid, counter)
    assert tokens().read(token) == RefreshToken(sid, counter)
    assert len(token) <= LONGEST


def test_macs_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    tokens().read(GENUINE)
    mac = GENUINE.rpartition(".")[2].encode()
    assert compared == [(mac, mac)]


# Keys


def test_a_new_secret_verifies_before_it_signs_and_an_old_one_after() -> None:
    before = RefreshTokens(Keys([OLD, NEW], issuer="here", signing=OLD), issuer="here")
    after = RefreshTokens(Keys([OLD, NEW], issuer="here", signing=NEW), issuer="here")
    for one, other in ((before, after), (after, before), (tokens(OLD), after), (tokens(NEW), before)):
        assert other.read(one.make(SID, 3)) == RefreshToken(SID, 3)
    assert before.make(SID, 3) == tokens(OLD).make(SID, 3)
    assert after.make(SID, 3) == tokens(NEW).make(SID, 3)
    with pytest.raises(TokenForged):
        tokens(NEW).read(before.make(SID, 3))


@pytest.mark.parametrize("secret", ["", "short", "x" * 31, b"xyz" * 10, [], ["x" * 31], None, 7, [None]])
def test_a_secret_of_less_than_32_bytes_is_refused(secret: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Keys(secret, issuer="here")  # type: ignore[arg-type]
    assert "xxxx" not in str(caught.value)


def test_a_secret_that_is_no_text_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Keys("x" * 40 + "\ud800", issuer="here")
    assert "xxxx" not in "".join(traceback.format_exception(caught.value))


def test_bytes_are_counted_and_not_characters() -> None:
    assert Keys("é" * 16, issuer="here").signing == Keys(("é" * 16).encode(), issuer="here").signing


def test_with_several_secrets_the_signing_one_must_be_named_and_listed() -> None:
    for secrets, signing in (([OLD, NEW], None), ([OLD, NEW], OTHER), ([OLD, OLD], OLD), (OLD, NEW)):
        with pytest.raises(ConfigurationError):
            Keys(secrets, issuer="here", signing=signing)


def test_a_purpose_and_an_issuer_have_keys_of_their_own() -> None:
    derived = [
        key
        for issuer in ("here", "there")
        for purpose in ("refresh token", "access token", "csrf")
        for key in Keys([OLD, NEW], issuer=issuer, signing=OLD).derive(purpose).values()
    ]
    assert len(set(derived)) == len(derived) == 12
    assert all(len(key) == 32 for key in derived)


def test_the_format_is_fixed() -> None:
    """Tokens that are out there must stay good: a change of this value signs everybody out."""
    assert GENUINE == "kt1.UP2c9UBx.AAAAAAAAAAAAAAAAAAAAAA.7.y2D5nLNz1zNlfUv5wweKsq7a4SJZwPfvgKmuKSmeF90"
