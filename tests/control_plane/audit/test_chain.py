"""A chain of records: what continues it, and what breaks it."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.audit.chain import GENESIS, MENDED, Field, Head, body, link, parse, walk

NAMES = st.sampled_from(["token.created", "identity.renewed", "call.refused"])


def chain_of(*bys: str, head: Head = GENESIS) -> list[bytes]:
    lines = []
    for by in bys:
        line, head = link(head, body("token.created", at=1.5, by=by, fields={}))
        lines.append(line)
    return lines


@given(st.lists(st.tuples(NAMES, st.text(max_size=20), st.text(max_size=20)), max_size=8))
def test_what_was_linked_is_read_back(told: list[tuple[str, str, str]]) -> None:
    """Whatever the texts are: one line each, in ASCII."""
    head, octets = GENESIS, b""
    for event, by, reason in told:
        line, head = link(head, body(event, at=1.5, by=by, fields={"reason": reason}))
        octets += line
    found = walk(octets, GENESIS)
    assert found.fault is None
    assert [(one.event, one.by, one.fields["reason"]) for one in found.records] == told
    assert octets.isascii()
    assert octets.count(b"\n") == len(told)
    assert found.head == head


@given(st.data())
def test_j11_any_octet_changed_is_found(data: st.DataObject) -> None:
    """At its line or the one after; the last line's own change is what the head in the store is for."""
    lines = chain_of("ann", "bob", "cid", "dan")
    octets = b"".join(lines)
    at = data.draw(st.integers(0, len(octets) - len(lines[-1]) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda one: one != octets[at]))
    harmed = octets[:at] + bytes([other]) + octets[at + 1 :]
    found = walk(harmed, GENESIS)
    assert found.fault is not None
    assert abs(found.fault.line - (octets[: at + 1].count(b"\n") + 1)) <= 2


@given(st.lists(st.integers(0, 3), max_size=6))
def test_j11_lines_in_another_order_are_no_chain(order: list[int]) -> None:
    """Nor with some left out; only what is a beginning of it is whole."""
    lines = chain_of("ann", "bob", "cid", "dan")
    found = walk(b"".join(lines[one] for one in order), GENESIS)
    assert (found.fault is None) == (order == list(range(len(order))))


def test_the_fault_says_what_it_means() -> None:
    """In words an operator understands."""
    one, two, three = chain_of("ann", "bob", "cid")
    cases = {
        one + three: "record 3 follows record 1: those between were removed",
        one + one: "record 1 follows record 1: it was moved or repeated",
        one + b"{}\n": "it is not a record",
        one + two.replace(b"bob", b"rob") + three: "it does not continue record 2: that one, or this one, was changed",
    }
    for octets, why in cases.items():
        fault = walk(octets, GENESIS).fault
        assert fault is not None
        assert fault.why == why


def test_what_a_crash_left_is_passed_over_only_if_the_next_record_says_so() -> None:
    """By its length and hash."""
    (one,) = chain_of("ann")
    torn = b'{"seq":2,"pre\n'
    head = Head(seq=1, sha256=hashlib.sha256(one).hexdigest())
    told: dict[str, Field] = {"torn_octets": len(torn), "torn_sha256": hashlib.sha256(torn).hexdigest()}
    mended, _ = link(head, body(MENDED, at=1.0, by="control plane", fields=told))
    assert [record.event for record in walk(one + torn + mended).records] == ["token.created", MENDED]
    alone = walk(torn + mended)
    assert alone.fault is None
    assert alone.before == head
    assert walk(one + torn.replace(b"2", b"3") + mended).fault is not None
    assert walk(one + torn + chain_of("bob", head=head)[0]).fault is not None


@given(st.binary(max_size=200))
def test_any_octets_are_a_record_or_not(octets: bytes) -> None:
    """Never an exception."""
    assert parse(octets) is None or octets.startswith(b"{")
    walk(octets + b"\n")


def test_deep_and_odd_json_is_no_record() -> None:
    """The parser's own limits included."""
    for line in (b"[" * 100_000, b'{"seq":1}', b"[1]", b'{"seq":true,"prev":"","at":1,"event":"","by":""}', b"null"):
        assert parse(line + b"\n") is None


@pytest.mark.parametrize(
    "changed",
    [
        (b'"at":1.5', b'"at":Infinity'),
        (b'"at":1.5', b'"at":NaN'),
        (b'"at":1.5', b'"at":1' + b"0" * 400),
        (b'"prev":"00', b'"prev":"\\u00e9'),
        (b'"by":"ann"', b'"by":"ann","peers":[1]'),
        (b'"by":"ann"', b'"by":"ann","peers":{}'),
    ],
)
def test_j11_what_is_never_written_is_no_record(changed: tuple[bytes, bytes]) -> None:
    """Whoever edits the file cannot make what reads it fail in another way than by saying where."""
    line = chain_of("ann")[0]
    assert parse(line) is not None
    assert parse(line.replace(*changed)) is None
