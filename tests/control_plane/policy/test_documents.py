"""control_plane/policy/documents.py: the small YAML."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.policy import documents
from control_plane.policy.documents import Mapping, Node, Place, Scalar, Sequence, read_documents
from control_plane.policy.model import PolicyErrors


def plain(node: Node) -> object:
    """Without places; a guess stands before the text."""
    match node:
        case Scalar(text=text, guess=guess):
            return f"{guess}:{text}" if guess else text
        case Sequence(items=items):
            return [plain(item) for item in items]
        case Mapping(entries=entries):
            return {name: plain(value) for name, (_, value) in entries.items()}


def only(text: str) -> object:
    (document,) = read_documents(text, "f.yaml")
    return plain(document.root)


def refused(text: str) -> str:
    with pytest.raises(PolicyErrors) as caught:
        read_documents(text, "f.yaml")
    (problem,) = caught.value.problems
    return str(problem)


def test_nodes_keep_their_text_and_place() -> None:
    """Nothing is converted."""
    (document,) = read_documents("a: [x, 'y']\nb:\n  c: |\n    z\n", "f.yaml")
    assert plain(document.root) == {"a": ["x", "y"], "b": {"c": "z\n"}}
    assert isinstance(document.root, Mapping)
    key, value = document.root.entries["b"]
    assert (key.place, value.place) == (Place(2, 1), Place(3, 3))


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ("no", "bool"),
        ("Yes", "bool"),
        ("on", "bool"),
        ("true", "bool"),
        ("010", "int"),
        ("0x1F", "int"),
        ("1_000", "int"),
        ("1:30", "int"),
        ("1e3", ""),
        ("1.5", "float"),
        (".nan", "float"),
        ("~", "null"),
        ("null", "null"),
        ("2026-01-01", "timestamp"),
        ("=", "value"),
        ("<<", "merge"),
        ("1h", ""),
        ("10.0.0.1", ""),
    ],
)
def test_h08_what_yaml_would_guess_is_kept_beside_the_text(text: str, guess: str) -> None:
    """For the reader to refuse; in quotes it is text."""
    assert only(f"a: {text}") == {"a": f"{guess}:{text}" if guess else text}
    assert only(f"a: '{text}'") == {"a": text}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2", "f.yaml:2:1: the key 'a' is there twice, first in line 1"),
        ("a: {x: 1, 'x': 2}", "f.yaml:1:11: the key 'x' is there twice, first in line 1"),
    ],
)
def test_h06_the_same_key_twice_is_refused(text: str, problem: str) -> None:
    """PyYAML would take the last."""
    assert refused(text) == problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1", "1:4: anchors (&name) are not allowed"),
        ("a: &x [1]\nb: *x", "1:4: anchors"),
        ("a: *x", "1:4: aliases (*name) are not allowed"),
        ("? *x\n: 1", "1:3: aliases"),
        ("a: !!str 1", "1:4: tags (!name) are not allowed"),
        ("a: !!python/object:os.system x", "1:4: tags"),
        ("a: ! 1", "1:4: tags"),
        ("!x {a: 1}", "1:1: tags"),
        ("<<: {a: 1}", "1:1: merge keys (<<) are not allowed"),
        ("%YAML 1.1\n---\na: 1", "1:1: directives"),
        ("%TAG ! tag:x,2000:\n---\na: 1", "1:1: directives"),
        ("{[a]: 1}", "1:2: a key is text, not a list"),
        ("no: 1", "1:1: YAML reads the key 'no' as a boolean; quote it"),
        ("1.5: 1", "1:1: YAML reads the key '1.5' as a number"),
        ("~: 1", "1:1: YAML reads the key '~' as nothing"),
        ("a: \x00", "1:4: not YAML: the character U+0000 is not allowed"),
        ("a\nb: \x07", "2:4: not YAML: the character U+0007"),
        ("a: b\ufeff", "1:5: not YAML: the character U+FEFF"),
        ("\ud800", "1:1: not YAML: the character U+D800"),
        ('a: "\\UFFFFFFFF"', "not YAML"),
        ("a: [", "not YAML"),
        ("--- !\u00e9!x 1", "not YAML: while scanning a tag expected '!', but found '\\xe9'"),
        ("\ta: 1", "not YAML"),
        ("a: 'x", "not YAML"),
        ("%YAML " + "9" * 5000 + ".1\n---\na", "not YAML"),
    ],
)
def test_h07_what_makes_text_mean_something_else_is_refused(text: str, message: str) -> None:
    """Anchors, aliases, tags, merge keys, directives, odd keys, control characters, and what is not YAML."""
    assert message in refused(text)


@pytest.mark.parametrize("open_close", ["[]", "{}"])
def test_h07_depth_is_bounded(open_close: str) -> None:
    """20,000 levels make PyYAML's composer recurse until it dies."""
    begin, end = open_close[0] * 20_000, open_close[1] * 20_000
    assert "more than 32 levels deep" in refused(begin + end) or "a key is text" in refused(begin + end)
    assert "more than 32 levels deep" in refused("\n".join(" " * n + "a:" for n in range(40)))
    assert only("[" * 32 + "]" * 32) is not None


def test_h07_a_bomb_is_refused_at_its_first_anchor() -> None:
    """Nine levels of nine aliases would be 3.5 GB."""
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "1:4: anchors" in refused(bomb)


def test_h09_a_file_is_at_most_one_mebibyte() -> None:
    """Counted in octets, before anything is looked at."""
    assert "1048577 bytes are more than 1048576" in refused("#" * 1_048_577)
    assert "bytes are more" in refused("\u00e9" * 600_000)
    assert read_documents("#" * 1_048_576, "f.yaml") == []


def test_h09_documents_and_values_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small ones cost as much as a large one."""
    assert len(read_documents("---\na\n" * documents.DOCUMENTS_MAX, "f.yaml")) == documents.DOCUMENTS_MAX
    assert "more than 1000 documents" in refused("---\na\n" * (documents.DOCUMENTS_MAX + 1))
    monkeypatch.setattr(documents, "NODES_MAX", 100)
    assert "more than 100 values" in refused("[" + "a," * 100 + "]")


def test_documents_know_their_own_text() -> None:
    """With its comments, without its marks; and reading it again gives the same."""
    text = "# one\na: 1\n---\n# two\nb: |\n  x\n  ...\n...\n---\n---\n{c: 3} # three\n"
    found = read_documents(text, "f.yaml")
    assert [document.text for document in found] == [
        "# one\na: 1\n",
        "# two\nb: |\n  x\n  ...\n",
        "{c: 3} # three\n",
    ]
    assert [only(document.text) for document in found] == [plain(document.root) for document in found]
    assert [document.root.place.line for document in found] == [2, 5, 11]


def test_a_byte_order_mark_may_stand_at_the_beginning() -> None:
    """Some editors write it; it counts for nothing."""
    (document,) = read_documents("\ufeffa: 1\n", "f.yaml")
    assert (document.text, document.root.place) == ("a: 1\n", Place(1, 1))


def test_empty_documents_are_no_documents() -> None:
    """As kubectl sees them."""
    for text in ("", "\n", "# only a comment", "---\n---\n", "---\n...\n"):
        assert read_documents(text, "f.yaml") == []


YAML_ALPHABET = "ab01:-?[]{},&*!|>'\"%@`#~<=. \n\t\\x\u00e9\ufeff\x00"


@settings(max_examples=500)
@given(st.text(YAML_ALPHABET, max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Never another exception."""
    try:
        found = read_documents(text, "f.yaml")
    except PolicyErrors as errors:
        assert str(errors).isascii()  # noqa: PT017
        assert len(errors.problems) == 1  # noqa: PT017  # both outcomes are right, and each has its law
    else:
        assert [plain(read_documents(one.text, "g")[0].root) for one in found] == [plain(one.root) for one in found]
