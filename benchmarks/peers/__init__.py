"""keyturn beside other clients, on one strict server: `python -m benchmarks.peers` (see `__main__`)."""
