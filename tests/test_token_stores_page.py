"""docs/token-stores.md: its blocks run as they stand, and do what the page says of them."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.fernet import Fernet

import keyturn
from keyturn.cli.listing import draw
from keyturn.client.record import Failure, Record
from keyturn.client.token_stores import new_store
from keyturn.client.token_stores.inventory import Inventory, Item
from keyturn.testing import StrictServer

PAGE = Path(__file__).parents[1] / "docs" / "token-stores.md"
TEXT = PAGE.read_text()
CONNECT, RESEED, ENCRYPT = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
NOW = 1_795_000_000.0  # 2026-11-18 11:06:40 UTC


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an empty store, which the environment names too."""
    url = (tmp_path / "tokens").as_uri()
    monkeypatch.setenv("KEYTURN_STORE", url)
    return url


def run(block: str, server: StrictServer) -> SimpleNamespace:
    """Run a block of the page, its hosts those of a test; return what it defines."""
    code = block.replace("https://id.example", server.url).replace("https://api.example", server.url)
    names: dict[str, object] = {"__name__": "block"}
    exec(compile(code.replace('client_id="dashboard"', 'client_id="tests"'), str(PAGE), "exec"), names)  # noqa: S102
    return SimpleNamespace(**names)


def test_a_seed_is_used_once_and_then_todays_pair_for_every_process(
    strict_server: StrictServer, store: str
) -> None:
    seed, block = strict_server.sign_in(), run(CONNECT, strict_server)
    with block.connect("alice", seed) as first:
        renewed = first.renew(first.get_tokens())

    with block.connect("alice", seed) as restarted, block.connect("alice") as without:
        assert restarted.get_tokens().access == without.get_tokens().access == renewed.access
    with block.connect("bob") as nobody, pytest.raises(keyturn.NotSignedIn):
        nobody.get_tokens()
    assert strict_server.stats.refreshes == 1


def test_a_sign_out_is_not_undone_by_a_seed_and_a_forgotten_name_begins_with_it(
    strict_server: StrictServer, store: str
) -> None:
    seed, block = strict_server.sign_in(), run(CONNECT, strict_server)
    with block.connect("alice", seed) as credentials:
        credentials.get_tokens()
        credentials.sign_out()
    with block.connect("alice", seed) as restarted, pytest.raises(keyturn.SessionEnded):
        restarted.get_tokens()

    with Inventory(store) as inventory:
        assert inventory.forget("dashboard:alice")
    with block.connect("alice", seed) as restarted:
        assert restarted.get_tokens().access == seed.access


def test_reseed_takes_up_a_new_environment_variable_once(strict_server: StrictServer, store: str) -> None:
    old, new, block = strict_server.sign_in(), strict_server.sign_in(), run(RESEED, strict_server)
    with block.start(old, store) as credentials:
        credentials.renew(credentials.get_tokens())
    with block.start(old, store) as restarted:
        assert restarted.get_tokens().generation == 1
    with block.start(new, store) as changed:
        assert changed.get_tokens().access == new.access
        renewed = changed.renew(changed.get_tokens())
    with block.start(new, store) as restarted:
        assert restarted.get_tokens().access == renewed.access


@pytest.mark.parametrize("old", ["plain", Fernet.generate_key().decode()], ids=["from plain", "from a key"])
def test_keys_are_rotated_in_three_steps_while_others_are_a_step_behind(
    strict_server: StrictServer, store: str, monkeypatch: pytest.MonkeyPatch, old: str
) -> None:
    block, seed = run(ENCRYPT, strict_server), strict_server.sign_in()
    new = Fernet.generate_key().decode()
    steps = [[old], [new, old], [old, new], [new]]

    def refresh(keys: list[str], *, and_not: list[str]) -> None:
        monkeypatch.setenv("TOKEN_KEYS", ",".join(keys))
        with block.connect(store, seed) as credentials:
            renewed = credentials.renew(credentials.get_tokens())
        for others in steps:
            monkeypatch.setenv("TOKEN_KEYS", ",".join(others))
            with block.connect(store) as other:
                if others == and_not:
                    with pytest.raises(keyturn.RefreshMisconfigured):
                        other.get_tokens()
                else:
                    assert other.get_tokens().access == renewed.access

    refresh([old], and_not=[new])
    refresh([new, old], and_not=[new])
    refresh([old, new], and_not=[old])
    refresh([new], and_not=[old])


def test_the_command_for_a_key_prints_one() -> None:
    (command,) = re.findall(r"python -c '(from cryptography.*?)'\n", TEXT)

    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, timeout=60, check=True
    )

    Fernet(done.stdout.strip())


def test_every_url_of_the_page_names_a_store_that_is_known() -> None:
    urls = [url for url in re.findall(r"`([a-z+]+://[^`…]*)`", TEXT) if url.partition("://")[2]]
    schemes = {url.partition("://")[0] for url in urls}

    assert schemes >= {"file", "sqlite", "postgresql", "redis", "redis+cluster", "redis+sentinel", "keyring"}
    for url in urls:
        new_store(url.replace(":port", ":7000"))


def test_the_list_of_the_page_is_what_is_drawn_80_columns_wide() -> None:
    common = Record(
        name="dashboard:alice",
        epoch="3f9a1c2e4b5d6a7f",
        generation=41,
        began_at=NOW - 1e5,
        saved_at=NOW - 180,
        sealed="gAAAA",
        expires_at=NOW + 720,
    )
    bob = dataclasses.replace(
        common, name="dashboard:bob", epoch="77e01b9d", generation=8, saved_at=NOW - 7200, sealed=None
    )
    why = Failure(kind="unknown", at=NOW - 240, error="OutcomeUnknown", message="no answer")
    eve = dataclasses.replace(
        common, name="dashboard:eve", epoch="b2c4d6e8", generation=17, saved_at=NOW - 1140, failure=why
    )
    records = [
        common,
        dataclasses.replace(bob, ended="signed_out"),
        dataclasses.replace(eve, expires_at=NOW - 240),
    ]

    lines = draw([Item(record.name, record, NOW) for record in records], 80)

    assert "```\n" + "\n".join(line.plain for line in lines) + "\n```" in TEXT


def test_every_link_of_the_page_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", TEXT):
        assert (PAGE.parent / target).is_file(), target
