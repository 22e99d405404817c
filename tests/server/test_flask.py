"""The Flask extension: what it mounts, what it guards and what it leaves to the application."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import flask
import pytest

import keyturn.server
from keyturn import errors
from keyturn.server import Bearer, Cookies, Issuer
from keyturn.server.endpoints import Endpoints
from keyturn.server.flask import Keyturn

from .web import application


def test_claims_outside_of_a_protected_view_are_a_programming_error(issuer: Issuer) -> None:
    auth = Keyturn(issuer)
    with flask.Flask("x").test_request_context(), pytest.raises(RuntimeError, match=r"@auth\.required"):
        _ = auth.claims


def test_claims_never_reach_the_next_request_even_in_one_application_context(issuer: Issuer) -> None:
    app = flask.Flask("x")
    auth = Keyturn(issuer, "bearer")
    auth.init_app(app)

    @app.get("/guarded")
    @auth.required
    def guarded() -> str:
        return auth.claims.subject

    @app.get("/open")
    def unguarded() -> str:
        with pytest.raises(RuntimeError):
            _ = auth.claims
        return "nobody"

    client = app.test_client()
    token = issuer.sign_in("alice").access
    with app.app_context():
        assert client.get("/guarded", headers={"Authorization": f"Bearer {token}"}).text == "alice"
        assert client.get("/open").text == "nobody"
        with pytest.raises(RuntimeError):
            _ = auth.claims


def test_a_guarded_view_keeps_its_name_and_its_arguments(issuer: Issuer) -> None:
    app = flask.Flask("x")
    auth = Keyturn(issuer, "bearer")
    auth.init_app(app)

    @app.get("/items/<int:number>")
    @auth.required
    def item(number: int) -> str:
        """Return an item."""
        return f"{auth.claims.subject} {number}"

    assert (item.__name__, item.__doc__) == ("item", "Return an item.")
    token = issuer.sign_in("alice").access
    response = app.test_client().get("/items/7", headers={"Authorization": f"Bearer {token}"})
    assert response.text == "alice 7"


def test_with_live_a_sign_out_holds_at_once(issuer: Issuer) -> None:
    client = application(issuer, "bearer", live=True).test_client()
    pair = issuer.sign_in("alice", claims={"role": "x"})
    headers = {"Authorization": f"Bearer {pair.access}"}
    assert client.get("/me", headers=headers).status_code == 200
    issuer.sign_out(pair.sid)
    response = client.get("/me", headers=headers)
    assert response.json is not None
    assert (response.status_code, response.json["code"]) == (401, "session_ended")


def test_an_application_may_answer_refusals_itself(issuer: Issuer) -> None:
    app = application(issuer, "bearer")

    @app.errorhandler(errors.TokenRefused)
    def refused(error: errors.TokenRefused) -> tuple[str, int]:
        return f"no: {error.code}", 418

    response = app.test_client().get("/me")
    assert (response.status_code, response.text) == (418, "no: token_missing")


def test_two_deliveries_on_one_application_each_answer_in_their_own_way(issuer: Issuer) -> None:
    app = flask.Flask("x")
    pages = Keyturn(issuer, Cookies(secure=False), refresh_path="/auth/refresh", logout_path=None)
    api = Keyturn(issuer, Bearer(), refresh_path="/token/refresh", logout_path=None)
    for auth in (pages, api):
        auth.init_app(app)

    @app.get("/page")
    @pages.required
    def page() -> str:
        return "page"

    @app.get("/api")
    @api.required
    def data() -> str:
        return "data"

    client = app.test_client()
    assert "WWW-Authenticate" not in client.get("/page").headers
    assert client.get("/api").headers["WWW-Authenticate"] == "Bearer"


def test_one_extension_serves_many_applications(issuer: Issuer) -> None:
    auth = Keyturn(issuer, "bearer")
    token = issuer.sign_in("alice").refresh
    for name in ("one", "two"):
        app = flask.Flask(name)
        auth.init_app(app)
        assert app.test_client().post("/auth/refresh", json={"refresh_token": token}).status_code == 200


def test_a_fault_of_the_application_is_not_dressed_up_as_a_refusal(issuer: Issuer) -> None:
    app = application(issuer, "bearer")

    @app.get("/fault")
    def fault() -> str:
        raise errors.ConfigurationError("wrong")

    assert app.test_client().get("/fault").status_code == 500
    with pytest.raises(errors.ConfigurationError):
        Endpoints(issuer).refused(errors.ConfigurationError("wrong"))


def test_a_session_of_cookies_cannot_be_bound_to_a_client(issuer: Issuer) -> None:
    auth = Keyturn(issuer)
    with flask.Flask("x").test_request_context(), pytest.raises(errors.ConfigurationError):
        auth.sign_in("alice", client="app")


@pytest.mark.parametrize("arguments", [{"delivery": "pigeon"}, {"refresh_path": "x"}, {"logout_path": ""}])
def test_an_extension_that_cannot_work_is_refused_when_it_is_made(
    issuer: Issuer, arguments: dict[str, object]
) -> None:
    with pytest.raises(errors.ConfigurationError):
        Keyturn(issuer, **arguments)  # type: ignore[arg-type]


# What is imported


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_server_core_imports_no_framework() -> None:
    program = (
        "import sys, pkgutil, importlib, keyturn.server as s\n"
        "for m in pkgutil.walk_packages(s.__path__, 'keyturn.server.'):\n"
        "    if m.name != 'keyturn.server.flask': importlib.import_module(m.name)\n"
        "print(*{m.split('.')[0] for m in sys.modules} & {'flask', 'werkzeug', 'django', 'starlette'})"
    )
    assert run(program) == ""


def test_the_server_never_imports_the_client() -> None:
    for file in Path(keyturn.server.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                if name.partition(".")[0] == "keyturn":
                    assert name.startswith(("keyturn.server.", "keyturn.errors")), (
                        f"{file.name} imports {name}"
                    )


@pytest.mark.parametrize(
    ("absent", "module", "line"),
    [
        ("joserfc", "keyturn.server", "pip install 'keyturn[server]'"),
        ("cryptography", "keyturn.server", "pip install 'keyturn[server]'"),
        ("flask", "keyturn.server.flask", "pip install 'keyturn[flask]'"),
    ],
)
def test_without_its_extra_an_import_is_the_install_line(absent: str, module: str, line: str) -> None:
    program = (
        f"import sys; sys.modules[{absent!r}] = None\n"
        "import keyturn.errors\n"
        f"try:\n    import {module}\nexcept keyturn.errors.MissingExtra as error:\n    print(error)"
    )
    assert line in run(program)
