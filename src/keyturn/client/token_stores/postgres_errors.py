"""Trouble with PostgreSQL, as keyturn's errors: what passes, and what somebody has to mend.

The server's messages quote values, names and hosts, so none is passed on. At
a connection's start libpq tells no SQLSTATE; what its text says is looked for
there, in English, and what is not understood counts as passing.
"""

from __future__ import annotations

import re

import psycopg

from keyturn.errors import RefreshError, RefreshMisconfigured, TokenStoreUnavailable

POOLED = (
    "between keyturn and PostgreSQL is a proxy that pools transactions: a lease is a lock of a session, which"
    " is not to be had there; connect to the server directly, or pool sessions"
)
STANDBY = "the PostgreSQL server is a standby, which takes no writes"

_PASSING_CLASSES = {"08", "40", "53", "57", "58", "XX"}
_PASSING = {"25P03", "55P03"}
_MISCONFIGURED = [
    (r"authentication failed|no password supplied|not permitted to log in", "the user or the password"),
    (r"role \".*\" does not exist", "the user or the password"),
    (r"database \".*\" does not exist|permission denied for database", "the database"),
    (r"no pg_hba\.conf entry|rejects connection", "pg_hba.conf, which does not let us in"),
    (r"certificate|does not support SSL|invalid .*ssl", "TLS"),
    (
        r"unrecognized configuration parameter|(invalid|bad) .*value|unrecognized .*option",
        "an option of the URL",
    ),
]
_NEEDS = {
    "42501": "the role lacks a privilege; it needs SELECT, INSERT, UPDATE and DELETE on the table",
    "42703": "the table lacks a column: it is not keyturn's",
    "42P01": "the table is gone",
    "25006": "the database is read-only",
}


def trouble(error: psycopg.Error) -> RefreshError:
    """Return what a failed statement means."""
    state = error.sqlstate
    if isinstance(error, psycopg.DataError) and state is None:
        return RefreshMisconfigured("a value cannot be kept in PostgreSQL: text with NUL, or not of Unicode")
    if state is None or state[:2] in _PASSING_CLASSES or state in _PASSING:
        what = type(error).__name__ if state is None else f"SQLSTATE {state}"
        return TokenStoreUnavailable(f"PostgreSQL does not do what it was asked now ({what})")
    why = _NEEDS.get(state, type(error).__name__)
    return RefreshMisconfigured(f"PostgreSQL refuses: {why} (SQLSTATE {state})")


def ends_the_session(error: psycopg.Error) -> bool:
    """Tell whether a failed statement was the last one of its connection."""
    return (error.sqlstate or "")[:3] in {"57P", "080"}


def refused(error: psycopg.Error) -> RefreshError:
    """Return what a connection that did not come about means."""
    said = str(error)
    for pattern, what in _MISCONFIGURED:
        if re.search(pattern, said):
            return RefreshMisconfigured(f"PostgreSQL cannot be connected to for good: see to {what}")
    return TokenStoreUnavailable(f"PostgreSQL cannot be connected to now ({type(error).__name__})")


def missing_table(ddl: str) -> str:
    """Return what to say where the table is neither there nor ours to make."""
    statement = " ".join(ddl.split())
    return f"there is no table for tokens, and the role may not make it; have somebody run: {statement}"
