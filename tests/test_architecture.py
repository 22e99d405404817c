"""The map of the house: who imports whom, what an import loads, and that every public thing is explained."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import keyturn
from keyturn import errors

ROOT = Path(keyturn.__file__).parent

# A module's room is that of the longest name here that it begins with.
ROOMS = {
    "keyturn": "root",
    "keyturn.__main__": "faces",
    "keyturn.cli": "faces",
    "keyturn.demo": "faces",
    "keyturn.audit": "faces",
    "keyturn.testing": "testing",
    "keyturn.clocks": "ground",
    "keyturn.errors": "ground",
    "keyturn.tokens": "ground",
    "keyturn.client": "client core",
    **{
        f"keyturn.client.{name}": "client adapters"
        for name in (
            *("httpx", "httpx2", "httpx_call", "httpx_family"),
            *("requests", "niquests", "requests_call", "requests_family"),
            *("aiohttp", "aiohttp_bodies", "aiohttp_call"),
            "opentelemetry",
        )
    },
    "keyturn.client.token_stores.": "client stores",
    "keyturn.server": "server core",
    **{f"keyturn.server.{name}": "server adapters" for name in ("flask", "starlette", "fastapi", "django")},
    "keyturn.server.session_stores.": "server stores",
}
MAY_IMPORT = {
    "ground": {"ground"},
    "client core": {"ground", "client core"},
    "client stores": {"ground", "client core", "client stores"},
    "client adapters": {"ground", "client core", "client adapters"},
    "server core": {"ground", "server core"},
    "server stores": {"ground", "server core"},
    "server adapters": {"ground", "server core", "server adapters"},
    "root": {"ground", "client core"},
    "testing": {"ground", "testing"},
    "faces": set(ROOMS.values()),
}
# What opens a store by its URL imports it when it is asked for, not before.
OPENERS = {"keyturn.client.token_stores": "client stores", "keyturn.server.session_stores": "server stores"}
# The library of a module that is not named for it.
NAMED_OTHERWISE = {
    "keyturn.client.token_stores.file_lease": "filelock",
    **{
        f"keyturn.client.token_stores.{name}": "psycopg"
        for name in (
            *("postgres", "postgres_errors", "postgres_link"),
            *("postgres_listener", "postgres_session", "postgres_url"),
        )
    },
}
LIBRARIES = {
    "ground": set[str](),
    "client core": {"httpx2"},
    "server core": {"joserfc", "cryptography"},
    "root": set[str](),
}
# Imported where it is already loaded, or for types alone.
NEVER_AT_IMPORT = {
    "keyturn.client.gate": {"trio"},
    "keyturn.client.native": {"gevent"},
    "keyturn.client.grants.private_key_jwt": {"joserfc"},
    "keyturn.client.sealing": {"cryptography"},
}

LONGEST = 320
LONG = {"keyturn.errors": "one tree, drawn on top of it"}  # each with its reason


@dataclass(frozen=True)
class Import:
    """One import: what, and whether it happens as soon as the module is imported."""

    name: str
    at_once: bool


@dataclass(frozen=True)
class Module:
    """A module of keyturn, parsed."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def room(self) -> str:
        """Return the room that the module lies in."""
        return room(self.name)

    def imports(self) -> Iterator[Import]:
        """Yield every import, the ones in functions and for types included."""
        yield from _imports(self.tree, at_once=True)


def _imports(node: ast.AST, *, at_once: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, at_once) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield from (Import(_full(child.module or "", alias.name), at_once) for alias in child.names)
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        )
        yield from _imports(child, at_once=at_once and not later)


def _full(module: str, name: str) -> str:
    return f"{module}.{name}" if f"{module}.{name}" in NAMES else module


def module_name(path: Path) -> str:
    """Return the dotted name of a file."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name: str) -> str:
    """Return the room that a module of this name lies in."""
    below = [
        prefix for prefix in ROOMS if f"{name}.".startswith(prefix if prefix[-1] == "." else f"{prefix}.")
    ]
    return ROOMS[max((prefix for prefix in below if prefix != f"{name}."), key=len)]


PATHS = sorted(path for path in ROOT.rglob("*.py"))
NAMES = {module_name(path) for path in PATHS}
MODULES = [Module(module_name(path), path, ast.parse(path.read_text("utf-8"))) for path in PATHS]
each_module = pytest.mark.parametrize("module", MODULES, ids=[module.name for module in MODULES])


def test_the_map_knows_where_a_module_lies() -> None:
    assert room("keyturn") == "root"
    assert room("keyturn.tokens") == "ground"
    assert room("keyturn.client.flight") == "client core"
    assert room("keyturn.client.httpx2") == "client adapters"
    assert room("keyturn.client.token_stores") == "client core"
    assert room("keyturn.server.session_stores.sqlite") == "server stores"
    assert room("keyturn.server.flask") == "server adapters"


@each_module
def test_imports_lead_from_the_outer_rooms_to_the_inner_ones_only(module: Module) -> None:
    for one in module.imports():
        if one.name.partition(".")[0] != "keyturn":
            continue
        inner = room(one.name)
        opens = not one.at_once and inner == OPENERS.get(module.name)
        assert inner in MAY_IMPORT[module.room] or opens, f"{module.room} imports {one.name} of the {inner}"


def test_the_client_never_imports_the_server_nor_the_server_the_client() -> None:
    for module in MODULES:
        side = ".".join(module.name.split(".")[:2])
        other = {"keyturn.client": "keyturn.server", "keyturn.server": "keyturn.client"}.get(side)
        if other is not None:
            assert not [one.name for one in module.imports() if one.name.startswith(other)]


@each_module
def test_the_core_imports_no_framework_and_no_driver(module: Module) -> None:
    outside = {
        one
        for one in module.imports()
        if one.name.partition(".")[0] not in {"keyturn", *sys.stdlib_module_names}
    }
    names = {one.name.partition(".")[0] for one in outside}
    if module.room.endswith(("adapters", "stores")):  # one framework, which it is named for
        own = module.name.rpartition(".")[2].partition("_")[0]
        assert names <= {NAMED_OTHERWISE.get(module.name, own)}
    elif module.room in LIBRARIES:
        later = NEVER_AT_IMPORT.get(module.name, set())
        assert names <= LIBRARIES[module.room] | later
        assert not {one.name for one in outside if one.at_once and one.name.partition(".")[0] in later}


# What an import loads, in an interpreter of its own

FRAMEWORKS = {
    "flask",
    "django",
    "fastapi",
    "starlette",
    "werkzeug",
    "requests",
    "httpx",
    "aiohttp",
    "niquests",
}
DRIVERS = {"redis", "psycopg", "psycopg2", "asyncpg", "sqlite3", "filelock", "keyring"}
TOOLS = {"click", "rich", "pytest", "hypothesis", "trio", "flask_jwt_extended", "gunicorn", "gevent"}
TELEMETRY = {"opentelemetry"}
CRYPTO = {"joserfc", "cryptography", "jwt"}
KEYTURN = {"keyturn.server", "keyturn.testing", "keyturn.demo", "keyturn.cli"}
EVERYTHING = FRAMEWORKS | DRIVERS | TOOLS | TELEMETRY | CRYPTO


def loaded_by(statement: str) -> set[str]:
    """Return the names of all modules, and their packages, that an interpreter holds after a statement."""
    code = f"import sys, json; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    names: list[str] = json.loads(done.stdout)
    return {".".join(name.split(".")[: i + 1]) for name in names for i in range(name.count(".") + 1)}


@pytest.mark.parametrize(
    ("statement", "never"),
    [
        ("import keyturn", EVERYTHING | KEYTURN | {"keyturn.client.httpx", "keyturn.client.httpx2"}),
        ("import keyturn.errors, keyturn.tokens", EVERYTHING | KEYTURN),
        ("import keyturn.client", EVERYTHING | KEYTURN | {"keyturn.client.httpx", "keyturn.client.httpx2"}),
        ("import keyturn.client.httpx2", EVERYTHING | KEYTURN | {"keyturn.client.httpx"}),
        ("import keyturn.client.httpx", (EVERYTHING | KEYTURN) - {"httpx", "click", "rich"}),
        ("import keyturn.client.aiohttp", (EVERYTHING | KEYTURN) - {"aiohttp"}),
        ("import keyturn.client.requests", (EVERYTHING | KEYTURN) - {"requests"}),
        ("import keyturn.client.niquests", (EVERYTHING | KEYTURN) - {"niquests"}),
        (
            "import keyturn.client.opentelemetry",
            (EVERYTHING | KEYTURN | {"keyturn.client.httpx2", "opentelemetry.sdk"}) - TELEMETRY,
        ),
        ("import keyturn.server", (EVERYTHING | KEYTURN) - CRYPTO - {"keyturn.server"}),
        (
            "import keyturn.server.flask",
            (EVERYTHING | KEYTURN) - CRYPTO - {"flask", "werkzeug", "click", "keyturn.server"},
        ),
        ("import keyturn.cli", EVERYTHING | KEYTURN - {"keyturn.cli"}),
        ("import keyturn.testing", EVERYTHING | {"keyturn.server", "keyturn.demo", "keyturn.cli"}),
    ],
)
def test_an_import_loads_nothing_that_it_does_not_need(statement: str, never: set[str]) -> None:
    assert loaded_by(statement) & never == set()


def test_importing_the_client_starts_no_thread_and_opens_no_loop() -> None:
    statement = (
        "import threading, keyturn, keyturn.client.httpx2, keyturn.client.loop as loop; "
        "assert threading.active_count() == 1; assert loop._loop is None"
    )

    assert "keyturn.client.loop" in loaded_by(statement)


# Explained, and short enough to hold


@each_module
def test_every_module_opens_with_what_it_is(module: Module) -> None:
    docstring = ast.get_docstring(module.tree)

    assert docstring
    assert docstring.partition("\n")[0].endswith((".", ":"))


def _public(node: ast.AST) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the public classes, functions and methods below a node."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If | ast.Try):
            yield from _public(child)
        elif (
            isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and child.name[0] != "_"
        ):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from _public(child)


def _explained(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    if ast.get_docstring(node):
        return True
    if isinstance(node, ast.ClassDef):  # the family's classes share their text
        return any(isinstance(one, ast.Assign) and "__doc__" in ast.unparse(one) for one in node.body)
    return [ast.unparse(one) for one in node.body] == [
        "..."
    ]  # what some library already has, named for its shape


@each_module
def test_every_public_class_function_and_method_says_what_it_does(module: Module) -> None:
    silent = [node.name for node in _public(module.tree) if not _explained(node)]

    if module.room in {"ground", "root", "client core", "client adapters", "server core", "server adapters"}:
        assert silent == []


def test_a_module_is_short_enough_to_hold_or_says_why_not() -> None:
    long = {module.name for module in MODULES if len(module.path.read_text("utf-8").splitlines()) > LONGEST}

    assert long <= set(LONG) <= NAMES


def test_everything_that_a_package_names_is_there() -> None:
    for module in MODULES:
        for node in module.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names: list[str] = ast.literal_eval(node.value)
                assert len(names) == len(set(names)), module.name
                loaded = __import__(module.name, fromlist=names)
                assert [name for name in names if not hasattr(loaded, name)] == []


def test_the_tree_at_the_top_of_errors_is_the_tree_of_the_classes() -> None:
    drawn: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([ │├└─]*)([A-Z]\w+)(\s{2,}|$)", line)
        if match and hasattr(errors, match[2]):
            drawn.append((len(match[1]) // 4, match[2]))
    parents = {
        name: next(above for depth2, above in reversed(drawn[:i]) if depth2 == depth - 1)
        for i, (depth, name) in enumerate(drawn)
        if i
    }
    classes = [
        one for _, one in inspect.getmembers(errors, inspect.isclass) if one.__module__ == errors.__name__
    ]

    assert drawn[0] == (1, "KeyturnError")
    assert {one.__name__ for one in classes} == {name for _, name in drawn}
    for one in classes:
        if one is not errors.KeyturnError:
            assert one.__bases__[0].__name__ == parents[one.__name__]


def test_every_error_that_the_client_raises_is_at_the_root() -> None:
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.RefreshError | errors.NotSignedIn | errors.ConfigurationError):
            assert getattr(keyturn, name) is kind
