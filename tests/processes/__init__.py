"""One refresh across processes: proved by real processes over every token store.

    worker.py     a process with credentials, which obeys commands: `python -m tests.processes.worker`
    settings.py   what its credentials are made from
    callers.py    the storm inside of a worker: loops and threads that send requests
    pauses.py     the exact places where a worker can be made to stop itself
    handles.py    a worker as the tests see it: ask, kill, stop, let go on
    fleet.py      the workers of one test, and those that wait for the next
    stores.py     the stores under test, and what lies in them
    servers.py    a Redis and a PostgreSQL to stop, and to cut off
    proxy.py      a wire that loses answers
    disks.py      a directory without room, or without the right to write
    hosts.py      two hosts: networks of their own, and wrong clocks
    conftest.py   the fixtures `store_url`, `shared` and `fleet`

A test asks its fleet for workers, which all hold the same credentials, and
the strict server (`strict_server`) for tokens. Nothing sleeps to be right: a
worker tells of the events that it sees and stops where it is told, the server
holds what it is told to hold, and a kill hits where the test says.

    def test_…(strict_server: StrictServer, fleet: Fleet, shared: Shared) -> None:
        holder, *others = fleet.crew(4, tokens=strict_server.sign_in(ttl=-1.0), window=10.0)
        holder.pause("saving")
        first = holder.get(10)
        holder.paused()                       # the pair has been bought and is not saved
        asked = [other.get(10) for other in others]
        for other in others:
            other.waits(10)                   # all of its callers wait
        holder.kill()
        assert together(asked) == {"200": 30}
        assert strict_server.stats.reuses == 0

The modules test_01, test_02, … are named for what they prove: a storm, a
killed holder, a stopped one, and so on.
"""
