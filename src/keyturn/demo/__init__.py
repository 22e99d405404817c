"""`keyturn demo`: the storm and the single refresh, side by side, on real sockets."""
