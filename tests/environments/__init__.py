"""Where keyturn runs: each environment as its users have it, in a process of its own where that matters."""
