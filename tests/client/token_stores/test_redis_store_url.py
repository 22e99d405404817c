"""Redis URLs: what they say, what is wrong with them, and TLS."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from keyturn.client.token_stores import new_store
from keyturn.client.token_stores.redis_url import parse
from keyturn.errors import ConfigurationError, RefreshMisconfigured
from tests.client.token_stores.kit import a_record, on_loop
from tests.client.token_stores.redis_server import HOST, RedisServer, free_port


def test_a_url_says_where_and_who() -> None:
    one = parse("redis://al%40ice:p%2Fw%3A%40%E2%98%82@db.example:6380/7?prefix=app:tokens")

    assert (one.topology, one.tls, one.hosts) == ("one", False, (("db.example", 6380),))
    assert (one.username, one.password) == ("al@ice", "p/w:@☂")
    assert (one.db, one.prefix) == (7, "app:tokens")


def test_what_a_url_leaves_out_has_the_usual_value() -> None:
    one = parse("rediss://[::1]")

    assert (one.tls, one.hosts, one.db, one.prefix) == (True, (("::1", 6379),), 0, "keyturn")
    assert (one.username, one.password) == (None, None)
    assert parse("redis://:secret@host/").password == "secret"
    assert parse("redis://:a%2Bb+c@host/").password == "a+b+c"


def test_a_cluster_and_sentinels_have_several_hosts() -> None:
    cluster = parse("rediss+cluster://:secret@a:1,[fe80::1]:2,c")
    sentinel = parse("redis+sentinel://u:p@a,b:2/my%20service/3?sentinel_username=s&sentinel_password=%26")

    assert (cluster.topology, cluster.tls) == ("cluster", True)
    assert cluster.hosts == (("a", 1), ("fe80::1", 2), ("c", 6379))
    assert (sentinel.topology, sentinel.hosts) == ("sentinel", (("a", 26379), ("b", 2)))
    assert (sentinel.service, sentinel.db) == ("my service", 3)
    assert (sentinel.sentinel_username, sentinel.sentinel_password) == ("s", "&")


@pytest.mark.parametrize(
    "url",
    [
        "redis://?prefix=a",
        "redis:///0",
        "redis://:s3cret@",
        "redis://:s3cret@host:port/0",
        "redis://:s3cret@host:0/0",
        "redis://:s3cret@host:65536/0",
        "redis://:s3cret@host:6379/zero",
        "redis://:s3cret@host:6379/-1",
        "redis://:s3cret@host:6379/\u0661",
        "redis://:s3cret@host:6379/0/1",
        "redis://:s3cret@a:1,b:2/0",
        "redis://:s3cret/@host/0",
        "redis://:s3cret#@host/0",
        "redis://:s3cret?@host/0",
        "redis://:s3cret@[::1/0",
        "redis://:s3cret@::1/0",
        "redis://:s3cret%ff@host/0",
        "redis://:s3cret@host/0?prefix=",
        "redis://:s3cret@host/0?prefix={a}",
        "redis://:s3cret@host/0?prefix=a&prefix=b",
        "redis://:s3cret@host/0?timeout=3",
        "redis://:s3cret@host/0?ssl_ca_certs=/ca.pem",
        "redis://:s3cret@host/0?sentinel_password=s3cret",
        "rediss://:s3cret@host/0?ssl_cert_reqs=none",
        "redis+cluster://:s3cret@a,b/1",
        "redis+cluster://:s3cret@a,,b",
        "redis+sentinel://:s3cret@a,b",
        "redis+sentinel://:s3cret@a,b/",
        "redis+sentinel://:s3cret@a,b/service/x",
    ],
)
def test_a_url_that_cannot_work_is_refused_with_the_right_form_and_without_itself(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        new_store(url)

    text, scheme = str(caught.value), url.partition("://")[0]
    assert f"{scheme}://user:password@host" in text
    assert "s3cret" not in text
    assert url not in text
    assert caught.value.__suppress_context__


def test_neither_an_address_nor_a_store_shows_what_the_url_says() -> None:
    url = "redis://alice:s3cret@host.example/0"

    for shown in (repr(parse(url)), repr(new_store(url)), str(new_store(url))):
        assert "s3cret" not in shown
        assert "host.example" not in shown


def test_tls_checks_the_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    own, ca = authority.issue_cert(HOST), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    own.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    files = {"ca-cert-file": "ca.pem", "cert-file": "cert.pem", "key-file": "key.pem"}
    options = [word for name, file in files.items() for word in (f"--tls-{name}", str(tmp_path / file))]
    server = RedisServer(*options, "--tls-auth-clients", "optional")
    plain = f"rediss://{HOST}:{_tls_port(server)}/0"

    async def main() -> None:
        store = new_store(f"{plain}?ssl_ca_certs={ca}")
        record = a_record("a name")
        assert await store.write("a name", record, over=None)
        assert (await store.read("a name")).record == record
        await store.aclose()
        with pytest.raises(RefreshMisconfigured, match="SSLCertVerificationError"):
            await new_store(plain).read("a name")
        with pytest.raises(RefreshMisconfigured, match="FileNotFoundError"):
            await new_store(f"{plain}?ssl_ca_certs={tmp_path / 'none.pem'}").read("a name")

    try:
        on_loop(main)
    finally:
        server.close()


def _tls_port(server: RedisServer) -> int:
    port = free_port()
    server.command("CONFIG", "SET", "tls-port", port)
    return port
