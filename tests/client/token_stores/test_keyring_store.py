"""Tokens in the keyring: the contract, and the keyrings that cannot keep a token."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import keyring
import keyring.core
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.chainer import ChainerBackend
from keyring.backends.fail import Keyring as NoKeyring
from keyring.backends.null import Keyring as NullKeyring
from keyring.errors import InitError, KeyringLocked, PasswordSetError

import keyturn.client.token_stores.keyring as module
from keyturn.client.token_stores import new_store
from keyturn.client.token_stores.keyring import KeyringStore, state_directory
from keyturn.errors import ConfigurationError, RefreshMisconfigured, TokenStoreUnavailable
from tests.client.token_stores.contract import NAME, TokenStoreContract
from tests.client.token_stores.keyring_backend import FileKeyring
from tests.client.token_stores.kit import SECRET, a_record, next_of, on_loop
from tests.waiting import WITHIN, start

SERVICE = "keyturn tests"


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """Return what has keyring choose our back end, and the locks lie in a directory of the test's."""
    passwords = tmp_path / "passwords"
    passwords.mkdir()
    return {
        "PYTHON_KEYRING_BACKEND": f"{FileKeyring.__module__}.FileKeyring",
        "KEYRING_PROPERTY_DIRECTORY": str(passwords),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }


@pytest.fixture
def url(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a service in a keyring of the test's own."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(keyring.core, "_keyring_backend", None)
    return f"keyring://{SERVICE.replace(' ', '%20')}"


class TestKeyringStore(TokenStoreContract):
    garbage = (*TokenStoreContract.garbage, "\n")

    @pytest.fixture
    def environment(self, environment: Mapping[str, str]) -> Mapping[str, str]:
        """Return what has another process choose our back end."""
        return environment

    @pytest.fixture
    def url(self, url: str) -> str:
        """Return the URL of a service in a keyring of the test's own."""
        return url

    def damage(self, url: str, name: str, text: str) -> None:
        """Put `text` where the record of a name is."""
        keyring.set_password(SERVICE, name, text)


@pytest.fixture
def store(url: str) -> Iterator[KeyringStore]:
    """Return a store in a keyring of the test's own."""
    store = KeyringStore.from_url(url)
    yield store
    on_loop(store.aclose)


class Faulty(FileKeyring):
    """A keyring that fails as it is told to, before it sets a password and before it gets one."""

    priority = 5.0

    def __init__(
        self, *, setting: Callable[[str], None] | None = None, getting: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self.setting, self.getting = setting, getting
        self.calls = 0

    def get_password(self, service: str, username: str) -> str | None:
        """Fail or return a password."""
        self.calls += 1
        if self.getting is not None:
            self.getting()
        return super().get_password(service, username)

    def set_password(self, service: str, username: str, password: str) -> None:
        """Fail or keep a password."""
        if self.setting is not None:
            self.setting(password)
        super().set_password(service, username, password)


def first(store: KeyringStore) -> bool:
    """Write the first record."""
    return on_loop(lambda: store.write(NAME, a_record(NAME), over=None))


def second(store: KeyringStore, sealed: str = SECRET) -> bool:
    """Write the record after the first."""
    record = next_of(a_record(NAME), sealed)
    return on_loop(lambda: store.write(NAME, record, over=a_record(NAME).version))


# URLs and places


@pytest.mark.parametrize(
    ("url", "service"),
    [
        ("keyring://my-tool", "my-tool"),
        ("keyring://My%20tool%2F2/", "My tool/2"),
        ("keyring://a:b@c", "a:b@c"),
    ],
)
def test_a_url_names_a_service(url: str, service: str) -> None:
    assert KeyringStore.from_url(url)._service == service


@pytest.mark.parametrize(
    "url",
    [
        *("keyring://", "keyring:///", "keyring://%20", "keyring://a/b", "keyring://a?b", "keyring://a#b"),
        *("keyring://a%00", "keyring://[", "keyring://a%20(names)"),
    ],
)
def test_a_url_that_names_none_is_refused_with_the_form_that_does(url: str) -> None:
    with pytest.raises(ConfigurationError, match="keyring://my-tool"):
        new_store(url)


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="these have a place of their own")
def test_locks_lie_where_programs_keep_their_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert state_directory() == Path("/home/alice/.local/state/keyturn")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # which the specification has programs ignore
    assert state_directory() == Path("/home/alice/.local/state/keyturn")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_directory() == tmp_path / "keyturn"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ConfigurationError, match="XDG_STATE_HOME"):
        KeyringStore.from_url("keyring://tool")


def test_two_services_are_two_places(store: KeyringStore) -> None:
    other = KeyringStore.from_url("keyring://another")
    assert first(store)

    async def main() -> None:
        assert (await other.read(NAME)).record is None
        assert await other.names() == []
        mine, theirs = await store.try_lease(NAME, 600.0), await other.try_lease(NAME, 600.0)
        assert mine is not None
        assert theirs is not None
        await other.aclose()
        assert mine.held

    on_loop(main)


# Keyrings that keep no secret


class Plaintext(FileKeyring):
    """A keyring that keyring does not recommend."""

    priority = 0.5


def chain_of(*backends: KeyringBackend) -> ChainerBackend:
    """Return keyring's chain, of these."""
    chain: ChainerBackend = type("Chain", (ChainerBackend,), {"backends": list(backends)})()
    return chain


@pytest.mark.parametrize("kind", [NoKeyring, NullKeyring, Plaintext], ids=["none", "null", "plaintext"])
def test_a_keyring_that_keeps_no_secret_is_refused(
    store: KeyringStore, monkeypatch: pytest.MonkeyPatch, kind: type[KeyringBackend]
) -> None:
    monkeypatch.setattr(keyring.core, "_keyring_backend", kind())
    with pytest.raises(RefreshMisconfigured, match=r"no keyring here.*encryption_keys"):
        on_loop(lambda: store.read(NAME))
    with pytest.raises(RefreshMisconfigured):
        first(store)


@pytest.mark.parametrize("backends", [[], [Plaintext]], ids=["none", "plaintext"])
def test_a_chain_of_no_good_keyrings_is_no_keyring(
    store: KeyringStore, monkeypatch: pytest.MonkeyPatch, backends: list[type[KeyringBackend]]
) -> None:
    monkeypatch.setattr(keyring.core, "_keyring_backend", chain_of(*(kind() for kind in backends)))
    with pytest.raises(RefreshMisconfigured, match="no keyring here"):
        on_loop(lambda: store.read(NAME))


def test_a_chain_is_as_good_as_its_first(
    store: KeyringStore, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring.core, "_keyring_backend", chain_of(FileKeyring(), Plaintext()))
    assert first(store)
    assert second(store)


def test_a_back_end_that_cannot_be_loaded_is_said_to_be_one(
    store: KeyringStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "no.such.Keyring")
    with pytest.raises(RefreshMisconfigured, match="cannot load its back end"):
        on_loop(lambda: store.read(NAME))


# Keyrings that fail


def test_a_keyring_that_takes_short_passwords_only_is_found_out_and_keeps_the_old_one(
    store: KeyringStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_long(password: str) -> None:
        if len(password) > 1_280:
            raise RuntimeError(f"The stub received bad data: {password}")

    monkeypatch.setattr(keyring.core, "_keyring_backend", Faulty(setting=refuse_long))
    assert first(store)
    with pytest.raises(RefreshMisconfigured, match=r"characters.*encryption_keys") as caught:
        second(store, sealed=SECRET * 100)
    assert SECRET not in str(caught.value)
    assert on_loop(lambda: store.read(NAME)).record == a_record(NAME)
    assert second(store)


def test_a_keyring_that_keeps_half_of_a_password_is_found_out(
    store: KeyringStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cutting(FileKeyring):
        def set_password(self, service: str, username: str, password: str) -> None:
            super().set_password(service, username, password[:300])

    monkeypatch.setattr(keyring.core, "_keyring_backend", Cutting())
    with pytest.raises(RefreshMisconfigured, match="did not keep"):
        on_loop(
            lambda: store.write(NAME, dataclasses.replace(a_record(NAME), sealed=SECRET * 100), over=None)
        )


@pytest.mark.parametrize(
    "error",
    [KeyringLocked, InitError, PasswordSetError, OSError, ValueError],
    ids=lambda kind: str(kind.__name__),
)
def test_a_keyring_that_fails_may_answer_later_and_its_error_quotes_nothing(
    store: KeyringStore, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    assert first(store)

    def fail(password: str) -> None:
        raise error(f"cannot keep {password}")

    monkeypatch.setattr(keyring.core, "_keyring_backend", Faulty(setting=fail))
    failing = KeyringStore.from_url(f"keyring://{SERVICE}")
    with pytest.raises(TokenStoreUnavailable) as caught:
        second(failing)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert on_loop(lambda: store.read(NAME)).record == a_record(NAME)


def test_a_keyring_that_does_not_answer_is_asked_once_and_writes_nothing_late(
    store: KeyringStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked = threading.Event(), threading.Event()

    def hang() -> None:
        asked.set()
        assert answers.wait(WITHIN)

    assert first(store)
    backend = Faulty(getting=hang)
    monkeypatch.setattr(keyring.core, "_keyring_backend", backend)
    hanging = KeyringStore.from_url(f"keyring://{SERVICE}")
    monkeypatch.setattr(module, "_ANSWERS_WITHIN", 0.05)
    with pytest.raises(TokenStoreUnavailable, match="does not answer"):
        second(hanging)
    assert asked.is_set()
    for _ in range(3):
        with pytest.raises(TokenStoreUnavailable, match="does not answer"):
            on_loop(lambda: hanging.read(NAME))
    assert backend.calls == 1
    answers.set()
    monkeypatch.setattr(module, "_ANSWERS_WITHIN", WITHIN)
    assert on_loop(lambda: hanging.read(NAME)).record == a_record(NAME)
    assert second(hanging)


def test_a_caller_who_gives_up_while_he_waits_for_his_turn_takes_no_turn(
    store: KeyringStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked = threading.Event(), threading.Event()

    def hang() -> None:
        asked.set()
        assert answers.wait(WITHIN)

    monkeypatch.setattr(keyring.core, "_keyring_backend", Faulty(getting=hang))

    async def main() -> None:
        reading = [asyncio.ensure_future(store.read(NAME)) for _ in range(4)]
        await asyncio.sleep(0)
        for one in reading[1:3]:
            one.cancel()
        await asyncio.wait(reading[1:3])
        answers.set()
        assert [(await one).record for one in (reading[0], reading[3])] == [None, None]
        assert (await store.read(NAME)).record is None

    on_loop(main)
    assert asked.is_set()


def test_who_is_writing_makes_the_others_wait_and_give_up(
    store: KeyringStore, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked = threading.Event(), threading.Event()

    def hang(_: str) -> None:
        asked.set()
        assert answers.wait(WITHIN)

    monkeypatch.setattr(keyring.core, "_keyring_backend", Faulty(setting=hang))
    writing = start(lambda: first(store))
    assert asked.wait(WITHIN)
    other = KeyringStore.from_url(f"keyring://{SERVICE}")
    monkeypatch.setattr(module, "_WRITES_WITHIN", 0.05)
    with pytest.raises(TokenStoreUnavailable, match="another process"):
        first(other)
    answers.set()
    assert writing.result(WITHIN) is True
    assert first(other) is False


# Names


def test_an_index_that_cannot_be_read_begins_anew_and_loses_no_record(store: KeyringStore) -> None:
    assert first(store)
    for text in ("{", "null", '{"a":1}', "[1]", ""):
        keyring.set_password(f"{SERVICE} (names)", "names", text)
        assert on_loop(store.names) == []
        assert second(store) or on_loop(lambda: store.read(NAME)).record is not None
    assert on_loop(lambda: store.write("another", a_record("another"), over=None))
    assert on_loop(store.names) == ["another"]


def test_a_name_whose_record_somebody_else_deleted_is_not_listed(store: KeyringStore) -> None:
    assert first(store)
    keyring.delete_password(SERVICE, NAME)

    assert on_loop(store.names) == []
    assert on_loop(lambda: store.remove(NAME)) is False
    assert json.loads(keyring.get_password(f"{SERVICE} (names)", "names") or "") == []


def test_a_keyring_that_ignores_case_gives_nobody_anothers_tokens(
    store: KeyringStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Caseless(FileKeyring):
        def get_password(self, service: str, username: str) -> str | None:
            return super().get_password(service, username.lower())

        def set_password(self, service: str, username: str, password: str) -> None:
            super().set_password(service, username.lower(), password)

    monkeypatch.setattr(keyring.core, "_keyring_backend", Caseless())
    assert on_loop(lambda: store.write("Alice", a_record("Alice"), over=None))
    with pytest.raises(RefreshMisconfigured, match="case"):
        on_loop(lambda: store.read("alice"))
    with pytest.raises(RefreshMisconfigured, match="case"):
        on_loop(lambda: store.write("alice", a_record("alice"), over=None))


def test_the_lock_files_hold_nothing_and_are_the_users_own(
    store: KeyringStore, environment: Mapping[str, str]
) -> None:
    assert first(store)
    assert on_loop(lambda: store.try_lease(NAME, 600.0))
    files = [path for path in Path(environment["XDG_STATE_HOME"]).rglob("*") if path.is_file()]

    assert {path.suffix for path in files} == {".lock", ".lease"}
    assert all(path.stat().st_size == 0 for path in files)
    if os.name == "posix":
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
