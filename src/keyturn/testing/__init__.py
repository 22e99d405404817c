"""What users test with: a strict rotating server as a real process, and a clock.

    from keyturn.testing import StrictServer

    with StrictServer(refresh_delay=0.05) as server:
        tokens = server.sign_in("alice")
        server.expire()
        ...  # your client calls server.url + "/whatever", and refreshes at "/token"
        assert server.stats.rotations == 1

A refresh token is spent by its first use, and a spent one that comes back
ends the session: what a careful authorization server does (RFC 9700
§4.14.2), without mercy for races. pytest finds the fixtures by itself; they
are in `pytest_keyturn`.
"""

from keyturn.testing.clock import Clock
from keyturn.testing.mock_transport import MockTransport
from keyturn.testing.records import Seen, Settings, Stats, Switches
from keyturn.testing.strict_server import StrictServer

__all__ = ["Clock", "MockTransport", "Seen", "Settings", "Stats", "StrictServer", "Switches"]
