"""Promises of keyturn.server."""
