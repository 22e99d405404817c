"""Promises of keyturn.testing, kept over real sockets."""
