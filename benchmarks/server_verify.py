"""What it costs to verify an access token: one that is new here, and one that was seen before.

    python benchmarks/server_verify.py

Bare HMAC-SHA-256 over the same bytes and joserfc's own decode run beside it,
so that the ratios hold on any machine. The targets are 35 µs and 5 µs.
"""

from __future__ import annotations

import hmac
import secrets
import timeit
from collections.abc import Callable

from joserfc import jwt
from joserfc.jwk import OctKey
from joserfc.jws import JWSRegistry

from keyturn.server import Issuer
from keyturn.server.keys import Keys

SECRET = secrets.token_urlsafe(48)
ROUNDS, CALLS = 15, 2000


def microseconds(call: Callable[[], object]) -> float:
    """The best of several rounds: what the code costs, and not what else the machine does."""
    return min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


def main() -> None:
    forgetful = Issuer(secret=SECRET, store="memory://", remember=0)
    issuer = Issuer(secret=SECRET, store="memory://")
    token = issuer.sign_in("alice", claims={"role": "admin", "tenant": 7}).access
    (key,) = Keys(SECRET, issuer="keyturn").derive("access token").values()
    signed = token.rpartition(".")[0].encode()
    jwk, registry = OctKey.import_key(key), JWSRegistry(algorithms=["HS256"])

    bare = microseconds(lambda: hmac.digest(key, signed, "sha256"))
    decode = microseconds(lambda: jwt.decode(token, jwk, registry=registry))
    new = microseconds(lambda: forgetful.verify(token))
    seen = microseconds(lambda: issuer.verify(token))
    live = microseconds(lambda: issuer.verify(token, live=True))

    print(f"a token of {len(token)} bytes, best of {ROUNDS} x {CALLS} calls")
    print(f"  one HMAC-SHA-256 over it, nothing else     {bare:7.2f} µs")
    print(f"  joserfc's jwt.decode, signature only       {decode:7.2f} µs")
    print(
        f"  Issuer.verify, not seen before             {new:7.2f} µs   {new / decode:.2f} of joserfc's decode"
    )
    print(f"  Issuer.verify, seen before                 {seen:7.2f} µs   {seen / new:.2f} of a new one")
    print(f"  Issuer.verify, seen, live, memory store    {live:7.2f} µs")
    for name, figure, target in (("new", new, 35), ("seen", seen, 5)):
        print(f"  target {name}: at most {target} µs: {'held' if figure <= target else 'MISSED'}")


if __name__ == "__main__":
    main()
