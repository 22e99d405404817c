"""`keyturn tokens`: what a token store holds, for whoever operates it."""

from __future__ import annotations

import difflib
import json
import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import url2pathname

import click
from rich.console import Console
from rich.text import Text

from keyturn.cli.account import as_json, in_words, state
from keyturn.cli.listing import draw, printable
from keyturn.client.token_stores.inventory import Inventory, Item
from keyturn.errors import ConfigurationError, MissingExtra, RefreshError

VARIABLE = "KEYTURN_STORE"
_MOST_NAMED = 3


class _Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a URL in its place is not quoted, since it may hold a password."""
        if args and "://" in args[0]:
            _wrong("list, show or remove comes before STORE-URL")
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, short_help="See and end what a token store holds.")
def tokens() -> None:
    """See what a token store holds, and end it.

    A token store is where processes and hosts that share a session keep its
    tokens, by name. STORE-URL is the one that they are given (store=):
    file:///var/lib/app/tokens, sqlite:////var/lib/app/tokens.db,
    postgresql://…, redis://…, keyring://….

    Leave it out where the environment variable KEYTURN_STORE holds it; the
    password of a URL on the command line can be read by others on the machine.

    Tokens are never shown, and no encryption key is needed.
    """


_json = click.option("--json", "as_data", is_flag=True, help="Print data instead: a line of JSON a name.")
_one_json = click.option("--json", "as_data", is_flag=True, help="Print data instead: one JSON object.")


@tokens.command("list", short_help="List the names, and how each is.")
@click.argument("words", nargs=-1, metavar="[STORE-URL]")
@_json
def list_(words: tuple[str, ...], *, as_data: bool) -> None:
    """List all names of a token store, and how each is.

    STATE is "signed in", "signed out", "refused" (by the server, for good),
    "refreshing", or "outcome unknown": a refresh was begun more than a minute
    ago, and nobody knows whether it has spent the refresh token. EPOCH is new
    at every sign-in, GEN counts the refreshes since. Times are those of the
    store's clock.
    "unreadable" is a record that is damaged, or of another version.
    """
    if len(words) > 1:
        _wrong("list takes one STORE-URL, and nothing else")
    with _opened(words[0] if words else None) as inventory:
        items = inventory.items()
    if as_data:
        for item in items:
            click.echo(json.dumps(as_json(item)))
        return
    if not items:
        click.echo("The store holds no names.", err=True)
        return
    out = _console()
    _show(out, draw(items, out.width if out.is_terminal else None))


@tokens.command(short_help="Say everything of one name but its tokens.")
@click.argument("words", nargs=-1, metavar="[STORE-URL] NAME")
@_one_json
def show(words: tuple[str, ...], *, as_data: bool) -> None:
    """Say everything that a token store knows of one name, but its tokens."""
    url, name = _url_and_name(words)
    with _opened(url) as inventory:
        item = _known(inventory, name)
    if as_data:
        click.echo(json.dumps(as_json(item), indent=2))
        return
    out = _console()
    rows = [(what, printable(how)) for what, how in [("name", item.name), *in_words(item)]]
    _show(out, _in_columns(rows, out.width if out.is_terminal else None))


@tokens.command(short_help="End a session for all who share it.")
@click.argument("words", nargs=-1, metavar="[STORE-URL] NAME")
@click.option("-y", "--yes", is_flag=True, help="Do not ask. Needed where there is no terminal.")
@click.option("--forget", is_flag=True, help="Erase the record altogether.")
def remove(words: tuple[str, ...], *, yes: bool, forget: bool) -> None:
    """End the session of a name, for every process that shares the store.

    They find out before their next refresh, or at once where the store tells
    them, and need a sign-in. What stays is a tombstone: no refresh that is
    under way brings the tokens back, and no process that starts later takes
    up the refresh token of its configuration again. The server that issued
    the tokens is not told, and an access token that is out works until it
    expires.

    With --forget no tombstone stays, and whoever starts next begins with the
    tokens of its configuration, as on the first day. Stop the processes that
    use the name first: one that still holds its tokens may write them back.
    """
    url, name = _url_and_name(words)
    with _opened(url) as inventory:
        item = _known(inventory, name)
        said = printable(item.name)
        if item.record is None and not forget:
            _failed(f"{item.problem}; --forget erases it")
        if item.record is not None and item.record.ended is not None and not forget:
            click.echo(f"{said} is over already: {state(item)}. --forget erases its record.")
            return
        what = "Forget {}, so that it begins anew" if forget else "End the session of {}"
        _ask(f"{what.format(said)} ({state(item)}), for every process that shares the store?", yes=yes)
        done = inventory.forget(name) if forget else inventory.sign_out(name) is not None
    if not done:
        _wrong(f"somebody else has removed {said} in the meantime")
    click.echo(f"{said} is forgotten." if forget else f"{said} is signed out, for every process.")


def _url_and_name(words: tuple[str, ...]) -> tuple[str | None, str]:
    if len(words) > 2:
        _wrong("one STORE-URL and one NAME, and nothing else; quote a name that has spaces")
    if len(words) == 2 and "://" in words[1] and "://" not in words[0]:
        _wrong("STORE-URL comes before NAME")
    if not words or (len(words) == 1 and "://" in words[0]):
        _wrong("which NAME? `keyturn tokens list` shows them")
    return (words[0] if len(words) == 2 else None), words[-1]


@contextmanager
def _opened(url: str | None) -> Iterator[Inventory]:
    """Open the inventory of a URL, or of the environment's; say what goes wrong with it in one line."""
    given = url or os.environ.get(VARIABLE)
    if not given:
        _wrong(f"which store? Give its URL, or put it into {VARIABLE}")
    if given.startswith("memory://"):
        _wrong("memory:// is the memory of one process, and nobody looks into it from another")
    if url is not None and _has_password(url):
        _say(f"the URL's password can be read by others on this machine; in {VARIABLE} it cannot")
    try:
        with Inventory(given) as inventory:
            if not is_there(given):
                _wrong("there is no such file or directory: nothing was kept there yet")
            yield inventory
    except (ConfigurationError, MissingExtra) as problem:
        _wrong(str(problem))
    except RefreshError as problem:
        _failed(str(problem))
    except (KeyboardInterrupt, click.Abort):
        click.echo("Stopped.", err=True)
        sys.exit(130)


def is_there(url: str) -> bool:
    """Tell whether there is what a URL names, as far as it is on this machine: looking must not make it."""
    scheme, _, path = url.partition("://")
    if scheme == "file":
        return Path(url2pathname(urlsplit(url).path)).exists()
    return scheme != "sqlite" or Path(unquote(path[1:])).exists()


def _known(inventory: Inventory, name: str) -> Item:
    item = inventory.item(name)
    if item is None:
        close = difflib.get_close_matches(name, inventory.names(), n=_MOST_NAMED)
        meant = f"; did you mean {' or '.join(close)}?" if close else ""
        _wrong(f"the store has no name {name}{meant}")
    return item


def _ask(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not has_terminal():
        _wrong("there is no terminal to ask on: say --yes")
    if not click.confirm(question, err=True):
        click.echo("Nothing was changed.", err=True)
        sys.exit(1)


def has_terminal() -> bool:
    """Tell whether somebody is there to be asked."""
    return sys.stdin.isatty()


def _has_password(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.password) or any("password" in key for key in parse_qs(parts.query))
    except ValueError:
        return False


def _show(out: Console, lines: list[Text]) -> None:
    for line in lines:
        carried = line.plain.encode(out.encoding, "backslashreplace").decode(out.encoding)
        text = line if carried == line.plain else Text(carried)
        out.print(text, no_wrap=True, overflow="ignore", crop=False)


def _in_columns(rows: list[tuple[str, str]], width: int | None) -> list[Text]:
    """Return pairs of what and how, line by line; how is wrapped to a terminal's width."""
    room = max(len(what) for what, _ in rows) + 2
    lines = []
    for what, how in rows:
        parts = [how] if width is None else textwrap.wrap(how, max(width - room, 20))
        for head, part in zip([what] + [""] * (len(parts) - 1), parts, strict=True):
            lines.append(Text.assemble((head.ljust(room), "bold"), part))
    return lines


def _console() -> Console:
    # With NO_COLOR rich leaves out the colours, but not bold.
    plain = bool(os.environ.get("NO_COLOR"))
    return Console(highlight=False, markup=False, emoji=False, color_system=None if plain else "auto")


def _say(message: str) -> None:
    click.echo(f"keyturn tokens: {printable(message)}", err=True)


def _wrong(message: str) -> NoReturn:
    """End with what is wrong with the command line."""
    _say(message)
    sys.exit(2)


def _failed(message: str) -> NoReturn:
    """End with what went wrong on the way."""
    _say(message)
    sys.exit(1)
