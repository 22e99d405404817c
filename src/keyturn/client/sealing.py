"""Sealing: how a pair is written into a record, in plain text or encrypted.

A sealed text holds the three secrets of `Tokens` (access, refresh, extra),
and the name and the epoch that they belong to: a text that was copied into
the record of another name or another sign-in is refused. When the pair
expires stands in the record beside it, in the store's own time.

Encrypted, it is a Fernet token (AES-128 in CBC mode, HMAC-SHA-256) of
cryptography. Keys are listed oldest to newest: all of them open, the newest
seals, so that a record is under the newest key from its next save on. A new
key goes to every process first in the place before the last, then in the last
place; the old one leaves when every record was saved since.

Who may write to the store must not be able to plant a pair of his own, so
with keys a plain text is refused. To encrypt a store that is in use, list
"plain" as the oldest key until every record was saved once:

    ["plain", key]      reads both, writes encrypted
    [key]               reads and writes encrypted
    [key, "plain"]      reads both, writes plain: the way back

A store that cannot wait for that is signed in to anew, which opens no old
text. What encryption does not do: who may write to the store can still
destroy records, or put back an older text of the same sign-in, which costs
the session and gives away nothing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NoReturn

from keyturn.errors import ConfigurationError, MissingExtra, RefreshMisconfigured
from keyturn.tokens import Tokens

if TYPE_CHECKING:
    from cryptography.fernet import Fernet, MultiFernet

PLAIN: Final = "plain"
_FIELDS: Final = {"name", "epoch", "access", "refresh", "extra"}


class Sealing:
    """Seals pairs for the store, and opens what was sealed."""

    def __init__(self, opens: MultiFernet | None, seals: Fernet | None, *, plain: bool) -> None:
        self._opens = opens
        self._seals = seals
        self._plain = plain

    @classmethod
    def of(cls, keys: Sequence[str | bytes] = ()) -> Sealing:
        """Return the sealing with `keys`, oldest to newest; without any, it is plain text.

        A key is what `cryptography.fernet.Fernet.generate_key()` gives, or
        "plain" (see the module). Raises ConfigurationError for anything else,
        and MissingExtra where keys are given and cryptography is missing.
        """
        given: object = keys
        if isinstance(given, str | bytes | bytearray) or not isinstance(given, Sequence):
            raise ConfigurationError("encryption_keys must be a list of keys, oldest to newest")
        if all(map(_is_plain, keys)):
            return cls(None, None, plain=True)
        try:
            from cryptography.fernet import MultiFernet
        except ImportError:
            raise MissingExtra(
                "encryption_keys need cryptography: pip install 'keyturn[encryption]'"
            ) from None
        fernets = [_fernet(key) for key in keys if not _is_plain(key)]
        return cls(
            MultiFernet(fernets[::-1]),
            None if _is_plain(keys[-1]) else fernets[-1],
            plain=any(map(_is_plain, keys)),
        )

    @property
    def encrypts(self) -> bool:
        """Tell whether what is sealed now is encrypted."""
        return self._seals is not None

    def seal(self, name: str, epoch: str, tokens: Tokens) -> str:
        """Return the secrets of `tokens` as one text, bound to a name and an epoch."""
        text = json.dumps(
            {
                "name": name,
                "epoch": epoch,
                "access": tokens.access,
                "refresh": tokens.refresh,
                "extra": dict(tokens.extra),
            },
            separators=(",", ":"),
        )
        return text if self._seals is None else self._seals.encrypt(text.encode()).decode()

    def open(
        self, name: str, epoch: str, sealed: str, *, expires_at: float | None, lifetime: float | None
    ) -> Tokens:
        """Return the tokens that were sealed, with the expiry that the record has for them.

        `expires_at` is in POSIX seconds of this machine's clock, `lifetime`
        in seconds. Raises RefreshMisconfigured for what no key opens, for
        what is another name's or epoch's, and for what is damaged.
        """
        text = sealed if sealed.startswith("{") else self._decrypted(sealed)
        if text is sealed and not self._plain:
            raise RefreshMisconfigured(
                'the stored tokens are not encrypted, and encryption_keys are given: list "plain" as the'
                " oldest of them while a store is being changed over"
            )
        secrets = _parsed(text)
        if secrets is not None and (secrets["name"], secrets["epoch"]) != (name, epoch):
            raise RefreshMisconfigured("the stored tokens were sealed for another name or another sign-in")
        tokens = None if secrets is None else _tokens(secrets, expires_at, lifetime)
        if tokens is None:
            raise RefreshMisconfigured("the stored tokens cannot be read: the record is damaged")
        return tokens

    def _decrypted(self, sealed: str) -> str:
        if self._opens is None:
            raise RefreshMisconfigured(
                "the stored tokens are encrypted, or damaged, and there are no encryption_keys to open them"
            )
        from cryptography.fernet import InvalidToken

        with contextlib.suppress(InvalidToken, ValueError):
            return self._opens.decrypt(sealed.encode("ascii")).decode()
        raise RefreshMisconfigured(
            "none of the encryption_keys opens the stored tokens: the key that they were sealed with is"
            " not among them, or the record is damaged"
        )

    def __repr__(self) -> str:
        how = "encrypting" if self.encrypts else "plain"
        return f"<{type(self).__name__} {how}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("encryption keys are not pickled: give them to each process")


def _is_plain(key: object) -> bool:
    return isinstance(key, str) and key == PLAIN


def _fernet(key: object) -> Fernet:
    from cryptography.fernet import Fernet

    fernet = None
    if isinstance(key, str | bytes):
        with contextlib.suppress(ValueError):  # ours is raised below: nothing leads from it to the key
            fernet = Fernet(key)
    if fernet is None:
        raise ConfigurationError(
            "an encryption key must be 32 bytes in URL-safe base64;"
            " python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
            " prints one"
        )
    return fernet


def _parsed(text: str) -> dict[str, object] | None:
    try:
        fields: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and fields.keys() == _FIELDS else None


def _tokens(secrets: dict[str, object], expires_at: float | None, lifetime: float | None) -> Tokens | None:
    try:
        return Tokens(
            secrets["access"],  # type: ignore[arg-type]  # which it checks, as the other two
            secrets["refresh"],  # type: ignore[arg-type]
            expires_at,
            lifetime,
            secrets["extra"],  # type: ignore[arg-type]
        )
    except ConfigurationError:
        return None
