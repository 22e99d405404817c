"""Wrong use of the server is answered when the application starts, by an error that says what to do."""

from __future__ import annotations

import secrets
from typing import Any

import flask
import pytest

from keyturn.errors import ConfigurationError
from keyturn.server import Issuer
from keyturn.server.flask import Keyturn

SECRET = secrets.token_urlsafe(32)


def issuer() -> Issuer:
    return Issuer(secret=SECRET, store="memory://")


def test_an_application_in_the_place_of_the_issuer_is_refused() -> None:
    application: Any = flask.Flask("app")

    with pytest.raises(ConfigurationError, match="init_app"):
        Keyturn(application)


@pytest.mark.parametrize("delivery", [None, "cookie", 3])
def test_a_delivery_that_is_none_is_refused_by_its_name(delivery: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"not {delivery!r}$"):
        Keyturn(issuer(), delivery=delivery)


@pytest.mark.parametrize("store", [None, 3, "sessions.db", ""])
def test_a_store_that_is_none_is_refused_with_an_example(store: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///sessions\.db"):
        Issuer(secret=SECRET, store=store)


def test_mounting_twice_is_refused() -> None:
    application, auth = flask.Flask("app"), Keyturn(issuer())
    auth.init_app(application)

    with pytest.raises(ConfigurationError, match="before"):
        auth.init_app(application)


def test_a_protected_view_without_init_app_says_so() -> None:
    application, auth = flask.Flask("app"), Keyturn(issuer())
    application.testing = True

    @application.get("/statistics")
    @auth.required
    def statistics() -> str:
        return "never"

    with pytest.raises(RuntimeError, match="init_app"):
        application.test_client().get("/statistics")
