"""The double-submit value: a token's own, under a key of its own."""

from __future__ import annotations

import hmac

import pytest

from keyturn.errors import CSRFRefused
from keyturn.server.csrf import CSRF
from keyturn.server.keys import Keys

OLD, NEW = "old " * 8, "new " * 8


def csrf(*secrets: str, signing: str | None = None, issuer: str = "here") -> CSRF:
    return CSRF(Keys(list(secrets), issuer=issuer, signing=signing))


def test_a_value_goes_with_its_token_and_with_no_other() -> None:
    mine = csrf(OLD)
    mine.check("token", mine.value("token"))
    for token, value in (("token", mine.value("other")), ("other", mine.value("token")), ("token", "token")):
        with pytest.raises(CSRFRefused):
            mine.check(token, value)


@pytest.mark.parametrize("value", [None, "", " ", "x", "é", "\ud800", "\0", "A" * 100_000], ids=range(8))
def test_no_value_and_no_sense_are_refused(value: str | None) -> None:
    with pytest.raises(CSRFRefused):
        csrf(OLD).check("token", value)
    with pytest.raises(CSRFRefused):
        csrf(OLD).check("\ud800 é", value)


def test_another_secret_or_issuer_has_other_values() -> None:
    for other in (csrf(NEW), csrf(OLD, issuer="there")):
        with pytest.raises(CSRFRefused):
            other.check("token", csrf(OLD).value("token"))


def test_values_stay_good_through_a_roll_over() -> None:
    before, during, after = csrf(OLD), csrf(OLD, NEW, signing=OLD), csrf(OLD, NEW, signing=NEW)
    for one in (before, during, after):
        for other in (during, after):
            other.check("token", one.value("token"))


def test_values_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    csrf(OLD).check("token", csrf(OLD).value("token"))
    assert compared == [csrf(OLD).value("token").encode()]
