"""The command line: thin commands over the public API.

Nothing outside the base install is imported before it is needed, so that a
missing extra is one line that says what to install, not a traceback.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

_NEEDED = ("click", "rich")
_NEEDED_BY_DEMO = ("flask", "joserfc", "cryptography")


def main() -> None:
    """Run `keyturn`, and exit with its status.

    2 stands for a command line that cannot be run as it is, a missing extra
    included; 130 for Ctrl-C; 1 for what went wrong on the way.
    """
    _check(_NEEDED)
    try:
        commands()()
    except KeyboardInterrupt:
        sys.exit(130)


def _check(needed: tuple[str, ...]) -> None:
    if any(find_spec(name) is None for name in needed):
        sys.stderr.write(
            "keyturn: the command line is an extra; install it with: pip install 'keyturn[cli]'\n"
        )
        sys.exit(2)


def commands() -> click.Group:
    """Build the commands, which need the extra."""
    import click

    from keyturn.cli.tokens import tokens
    from keyturn.demo.scene import MOST_REQUESTS

    def count(value: object) -> int:
        try:
            number = int(str(value))
        except ValueError:
            number = 0
        if not 1 <= number <= MOST_REQUESTS:
            raise click.BadParameter(f"{value!r} is not a whole number from 1 to {MOST_REQUESTS}.")
        return number

    @click.group(
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Start with: keyturn demo",
    )
    @click.version_option(package_name="keyturn", message="keyturn %(version)s")
    def keyturn() -> None:
        """Keep people signed in when many requests run at once.

        An access token is short-lived; a refresh token buys the next one, and
        works once. When the access token expires under parallel requests, all
        of them are refused at the same moment. keyturn makes one refresh of
        it, and answers every request.
        """

    @keyturn.command(short_help="Watch parallel calls meet an expired token.")
    @click.option(
        "-n",
        "--requests",
        type=count,
        default=12,
        show_default=True,
        metavar="N",
        help=f"How many calls the dashboard makes at once, from 1 to {MOST_REQUESTS}.",
    )
    @click.option(
        "--json", "as_json", is_flag=True, help="Print the result as one JSON object instead of a picture."
    )
    def demo(requests: int, *, as_json: bool) -> None:
        """See what parallel calls do to an expired token, without keyturn and with it.

        Starts a server on this machine, signs in, lets the access token
        expire, and then makes N calls at once: first with a client in which
        every refused call refreshes for itself, as they are often written,
        then with keyturn. Draws both as a browser's network tab would.

        The server takes its time, as if it were some way off, so that there
        is something to see. Every figure is measured.

        Takes a few seconds, needs no network, and leaves nothing behind.
        """
        _check(_NEEDED_BY_DEMO)
        try:
            from keyturn.demo.run import main as run

            code = run(requests, as_json=as_json)
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            code = 130
        sys.exit(code)

    keyturn.add_command(tokens)
    return keyturn
