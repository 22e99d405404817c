"""A pair in a record: plain or encrypted, bound to its name and sign-in, and never shown."""

from __future__ import annotations

import base64
import copy
import itertools
import json
import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from keyturn.client.sealing import Sealing
from keyturn.errors import ConfigurationError, MissingExtra, RefreshMisconfigured
from keyturn.tokens import Tokens

OLD, NEW, OTHER = (base64.urlsafe_b64encode(byte * 32).decode() for byte in (b"o", b"n", b"x"))
PAIR = Tokens("the-access", "the-refresh", expires_at=1e9, lifetime=300, extra={"csrf": "the-extra"})
SEALED = Sealing.of([OLD]).seal("alice", "e1", PAIR)
SECRETS = ("the-access", "the-refresh", "the-extra", OLD, NEW, OTHER)

visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)
printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E))
seconds = st.none() | st.floats(0, 1e11)
pairs = st.builds(
    Tokens, visible, st.none() | visible, seconds, seconds, st.dictionaries(printable, printable, max_size=3)
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
each_way = pytest.mark.parametrize(
    "keys", [[], ["plain"], [OLD], [OLD, NEW], ["plain", NEW], [OLD, "plain"]], ids=range(6)
)


def opened(keys: list[str], sealed: str, *, name: str = "alice", epoch: str = "e1") -> Tokens:
    """Open a text with the expiry of `PAIR`."""
    return Sealing.of(keys).open(name, epoch, sealed, expires_at=PAIR.expires_at, lifetime=PAIR.lifetime)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and everything that leads on from it, shown or not."""
    next_one: BaseException | None = error
    while next_one is not None:
        yield next_one
        next_one = next_one.__cause__ or next_one.__context__


def assert_silent(error: BaseException) -> None:
    """Fail where an error, what led to it, or its pickle has a secret in it."""
    for one in chain(error):
        said = "".join(traceback.format_exception_only(one)) + repr(one.args) + repr(vars(one))
        said += pickle.dumps(one).decode("latin-1")
        assert [secret for secret in SECRETS if secret in said] == []


# Round trips


@given(pair=pairs, name=st.text(), epoch=st.text())
@each_way
def test_what_was_sealed_is_opened_as_it_was(keys: list[str], pair: Tokens, name: str, epoch: str) -> None:
    sealing = Sealing.of(keys)
    sealed = sealing.seal(name, epoch, pair)

    assert sealing.open(name, epoch, sealed, expires_at=pair.expires_at, lifetime=pair.lifetime) == pair


def test_without_keys_it_is_json_and_with_keys_nothing_of_it_can_be_read() -> None:
    plain, encrypted = (Sealing.of(keys).seal("alice", "the-epoch", PAIR) for keys in ([], [OLD]))

    assert json.loads(plain) == {
        "name": "alice",
        "epoch": "the-epoch",
        "access": "the-access",
        "refresh": "the-refresh",
        "extra": {"csrf": "the-extra"},
    }
    assert [word for word in ("alice", "the-epoch", *SECRETS) if word in encrypted] == []


def test_the_expiry_is_the_records_and_is_not_sealed() -> None:
    sealed = Sealing.of([OLD]).seal("alice", "e1", PAIR)
    tokens = Sealing.of([OLD]).open("alice", "e1", sealed, expires_at=7.0, lifetime=None)

    assert (tokens.expires_at, tokens.lifetime) == (7.0, None)


# Bound to a name and a sign-in


@each_way
def test_a_text_in_the_record_of_another_name_or_sign_in_is_refused(keys: list[str]) -> None:
    sealed = Sealing.of(keys).seal("alice", "e1", PAIR)

    for place in ({"name": "bob"}, {"epoch": "e2"}, {"name": "e1", "epoch": "alice"}):
        with pytest.raises(RefreshMisconfigured, match="another name or another sign-in") as caught:
            opened(keys, sealed, **place)
        assert_silent(caught.value)


# Keys


def test_the_newest_key_seals_and_all_of_them_open() -> None:
    sealed = Sealing.of([OLD, NEW]).seal("alice", "e1", PAIR)

    assert opened([NEW], sealed) == PAIR
    assert opened([OTHER, NEW, OLD], sealed) == PAIR
    with pytest.raises(RefreshMisconfigured):
        opened([OLD], sealed)


def test_keys_are_rotated_without_a_moment_in_which_a_process_cannot_read() -> None:
    """Each step is given to one process after the other, so that neighbouring steps must read each other."""
    steps = [[OLD], [NEW, OLD], [OLD, NEW], [NEW]]
    sealed = Sealing.of([OLD]).seal("alice", "e1", PAIR)
    for one, next_one in itertools.pairwise(steps):
        for writes, reads in ((one, next_one), (next_one, one), (next_one, next_one)):
            tokens = opened(writes, sealed)
            sealed = Sealing.of(writes).seal("alice", "e1", tokens)  # as the next save does
            assert opened(reads, sealed) == PAIR

    assert Fernet(NEW).decrypt(sealed)


def test_encryption_is_switched_on_and_off_again_for_a_store_in_use() -> None:
    steps: list[list[str]] = [[], ["plain"], [OLD, "plain"], ["plain", OLD], [OLD], [OLD, "plain"], []]
    sealed = Sealing.of([]).seal("alice", "e1", PAIR)
    looked = []
    for keys in steps:
        tokens = opened(keys, sealed)
        sealed = Sealing.of(keys).seal("alice", "e1", tokens)
        assert Sealing.of(keys).encrypts is not sealed.startswith("{")
        looked.append(sealed[0])

    assert tokens == PAIR
    assert looked == ["{", "{", "{", "g", "g", "{", "{"]


def test_with_keys_a_planted_plain_text_is_refused() -> None:
    with pytest.raises(RefreshMisconfigured, match='list "plain" as the oldest') as caught:
        opened([OLD], Sealing.of([]).seal("alice", "e1", PAIR))
    assert_silent(caught.value)


def test_without_keys_an_encrypted_text_says_that_they_are_missing() -> None:
    with pytest.raises(RefreshMisconfigured, match="there are no encryption_keys") as caught:
        opened([], Sealing.of([OLD]).seal("alice", "e1", PAIR))
    assert_silent(caught.value)


def test_where_no_key_fits_the_error_says_so() -> None:
    with pytest.raises(RefreshMisconfigured, match="none of the encryption_keys opens") as caught:
        opened([NEW, OTHER], Sealing.of([OLD]).seal("alice", "e1", PAIR))
    assert_silent(caught.value)


@pytest.mark.parametrize("bad", ["", "short", OLD[:-4], "A" * 44, "é" * 44, "\ud800", b" ", b"\xff" * 44])
def test_a_key_that_is_none_is_a_configuration_error_without_the_key_in_it(bad: str | bytes) -> None:
    with pytest.raises(ConfigurationError, match="32 bytes in URL-safe base64") as caught:
        Sealing.of([OLD, bad])
    assert_silent(caught.value)
    assert list(chain(caught.value)) == [caught.value]


@pytest.mark.parametrize("bad", [OLD, NEW.encode(), bytearray(b"x"), None, 5, {OLD}, iter([OLD])])
def test_keys_that_are_no_list_are_a_configuration_error(bad: object) -> None:
    with pytest.raises(ConfigurationError, match="must be a list of keys, oldest to newest") as caught:
        Sealing.of(bad)  # type: ignore[arg-type]
    assert_silent(caught.value)


@pytest.mark.parametrize("bad", [None, 5, [OLD], True])
def test_a_key_that_is_no_text_is_a_configuration_error(bad: object) -> None:
    with pytest.raises(ConfigurationError, match="URL-safe base64"):
        Sealing.of([bad])  # type: ignore[list-item]


def test_keys_are_text_or_bytes_with_or_without_the_line_end_of_the_file_that_they_come_from() -> None:
    sealed = Sealing.of([OLD]).seal("alice", "e1", PAIR)

    assert Sealing.of([OLD.encode()]).open("alice", "e1", sealed, expires_at=1, lifetime=2).refresh
    assert opened([f"{OLD}\n"], sealed) == PAIR


def test_without_cryptography_plain_works_and_keys_give_the_install_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)

    assert opened([], Sealing.of(["plain"]).seal("alice", "e1", PAIR)) == PAIR
    with pytest.raises(MissingExtra, match=r"pip install 'keyturn\[encryption\]'"):
        Sealing.of([OLD])


def test_plain_text_loads_no_cryptography() -> None:
    program = (
        "import sys\n"
        "from keyturn import Tokens\n"
        "from keyturn.client.sealing import Sealing\n"
        "sealed = Sealing.of().seal('a', 'e', Tokens('x'))\n"
        "Sealing.of().open('a', 'e', sealed, expires_at=None, lifetime=None)\n"
        "assert 'cryptography' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# Nothing is shown


@each_way
def test_no_repr_shows_a_key_and_no_pickle_or_copy_takes_one_along(keys: list[str]) -> None:
    sealing = Sealing.of(keys)

    assert repr(sealing) == f"<Sealing {'encrypting' if sealing.encrypts else 'plain'}>"
    for takes_along in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="give them to each process"):
            takes_along(sealing)


# Hostile texts


def under_both(text: str) -> Iterator[tuple[list[str], str]]:
    """Yield a text as it would lie in a plain store, and encrypted with the right key."""
    yield [], text
    yield [OLD], Fernet(OLD).encrypt(text.encode("utf-8", "surrogatepass")).decode()


@given(text=st.text() | st.text().map("{{{}".format) | json_values.map(json.dumps))
def test_any_text_in_the_place_of_a_sealed_one_ends_in_a_clear_error(text: str) -> None:
    for keys, sealed in ([OLD], text), *under_both(text):
        with pytest.raises(RefreshMisconfigured) as caught:
            opened(keys, sealed)
        assert_silent(caught.value)


@given(
    field=st.sampled_from(["name", "epoch", "access", "refresh", "extra"]),
    value=json_values.filter(lambda value: value is not None and value not in ("alice", "e1")),
)
def test_a_field_of_the_wrong_type_is_refused_or_is_a_token_that_tokens_takes(
    field: str, value: object
) -> None:
    fields = json.loads(Sealing.of([]).seal("alice", "e1", PAIR))
    for keys, sealed in under_both(json.dumps({**fields, field: value})):
        try:
            tokens = opened(keys, sealed)
        except RefreshMisconfigured as error:
            assert_silent(error)
        else:
            assert getattr(tokens, field) == value


@pytest.mark.parametrize("field", ["name", "epoch", "access", "refresh", "extra"])
def test_a_missing_field_and_one_too_many_are_refused(field: str) -> None:
    fields = json.loads(Sealing.of([]).seal("alice", "e1", PAIR))
    fewer = {name: value for name, value in fields.items() if name != field}
    for text in (json.dumps(fewer), json.dumps({**fields, "more": 1})):
        for keys, sealed in under_both(text):
            with pytest.raises(RefreshMisconfigured, match="the record is damaged") as caught:
                opened(keys, sealed)
            assert_silent(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"access": ""},
        {"access": "a b"},
        {"access": None},
        {"refresh": "a\nb"},
        {"refresh": ["the-refresh"]},
        {"extra": None},
        {"extra": [["csrf", "x"]]},
        {"extra": {"csrf": 5}},
        {"extra": {"csrf": "é"}},
    ],
)
def test_tokens_that_no_header_could_carry_are_a_damaged_record(change: dict[str, object]) -> None:
    fields = json.loads(Sealing.of([]).seal("alice", "e1", PAIR))
    for keys, sealed in under_both(json.dumps({**fields, **change})):
        with pytest.raises(RefreshMisconfigured, match="the record is damaged") as caught:
            opened(keys, sealed)
        assert_silent(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "{" * 100_000,
        '{"extra":' * 100_000,
        '{"name":' + "[" * 100_000,
        '{"name":' + "9" * 10_000 + "}",
        "[" * 100_000,
        "{}",
        "null",
        "\ud800",
    ],
    ids=lambda text: text[:10].encode("ascii", "replace").decode(),
)
def test_texts_made_to_break_a_parser_end_in_a_clear_error(text: str) -> None:
    for keys, sealed in under_both(text):
        with pytest.raises(RefreshMisconfigured):
            opened(keys, sealed)


@given(at=st.integers(0, 1000), by=st.integers(1, 255))
def test_one_changed_byte_of_an_encrypted_text_is_refused(at: int, by: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(SEALED))
    raw[at % len(raw)] ^= by
    with pytest.raises(RefreshMisconfigured):
        opened([OLD], base64.urlsafe_b64encode(raw).decode())


def test_what_another_program_encrypted_with_the_same_key_is_a_damaged_record() -> None:
    for data in (b"session=alice", b"\xff\xfe\x00 the-refresh", b"{}", b"[1]"):
        with pytest.raises(RefreshMisconfigured) as caught:
            opened([OLD], Fernet(OLD).encrypt(data).decode())
        assert_silent(caught.value)
        assert list(chain(caught.value)) == [caught.value]
