"""keyturn: one refresh, however many requests."""
