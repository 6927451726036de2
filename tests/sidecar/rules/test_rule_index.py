"""The index leaves out what cannot match and nothing else, and looks at few rules however many there are."""

from __future__ import annotations

from hypothesis import event, given
from hypothesis import strategies as st

from sidecar.rules.conditions import HOST, METHOD, PATH
from sidecar.rules.keys import Attribute, Key
from sidecar.rules.match import compile_matcher, compile_paths
from sidecar.rules.rule_index import FEW, AttributeId, Entry, RuleIndex, Value

TENANT = Key(Attribute.HEADER, ("x-tenant",))
ATTRIBUTES: tuple[AttributeId, ...] = (PATH, HOST, TENANT, METHOD)
PATTERNS: dict[AttributeId, list[str]] = {
    PATH: ["/", "/a", "/a/b", "/a*", "/a/*", "*.png", "*b", "*", "/a/{*}", "/{*}/b", "/a/{**}"],
    HOST: ["orders", "orders.shop", "orders*", "*.shop", "*"],
    TENANT: ["one", "two", "t*", "*e", "*{e}", "{e}", "/o{*"],
    METHOD: ["GET", "PUT", "P*"],
}
REQUESTS: dict[AttributeId, list[str]] = {
    PATH: ["", "/", "/a", "/a/b", "/a/", "/ab", "/x/b", "/a/x.png", "/a/b/c"],
    HOST: ["", "orders", "orders.shop", "other.shop"],
    METHOD: ["GET", "PUT", "POST"],
}

entries = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            attribute: st.lists(st.sampled_from(patterns), min_size=1, max_size=3).map(tuple)
            for attribute, patterns in PATTERNS.items()
        },
    ),
    max_size=40,
)
asked = st.fixed_dictionaries(
    {attribute: st.sampled_from(values) for attribute, values in REQUESTS.items()}
    | {TENANT: st.lists(st.sampled_from(["one", "two", "three", "", "th{e}", "{e}", "/o{e}"]), max_size=3).map(tuple)}
)


def may_match(wanted: dict[AttributeId, tuple[str, ...]], request: dict[AttributeId, Value]) -> bool:
    for attribute, patterns in wanted.items():
        matches = compile_paths(patterns) if attribute == PATH else compile_matcher(patterns)
        value = request[attribute]
        if not any(matches(text) for text in ((value,) if isinstance(value, str) else value)):
            return False
    return True


@given(entries, asked)
def test_every_rule_that_matches_is_a_candidate(
    wanted: list[dict[AttributeId, tuple[str, ...]]], request: dict[AttributeId, Value]
) -> None:
    """And candidates come in their order, each once."""
    index = RuleIndex([Entry(number, one) for number, one in enumerate(wanted)], ATTRIBUTES)
    found = list(index.candidates(request.__getitem__))
    assert found == sorted(set(found))
    matching = {number for number, one in enumerate(wanted) if may_match(one, request)}
    event(f"{bool(matching)} match")
    assert matching <= set(found)


def test_rules_of_other_paths_are_not_looked_at() -> None:
    """One of ten thousand."""
    index = RuleIndex([Entry(number, {PATH: (f"/api/{number}/*",)}) for number in range(10_000)], ATTRIBUTES)
    assert list(index.candidates(lambda attribute: "/api/77/x" if attribute == PATH else "")) == [77]


def test_rules_of_one_path_are_told_apart_by_what_else_they_name() -> None:
    """A thousand tenants, one path."""
    index = RuleIndex([Entry(number, {PATH: ("/a",), TENANT: (f"t{number}",)}) for number in range(1_000)], ATTRIBUTES)
    look: dict[AttributeId, Value] = {PATH: "/a", TENANT: ("t5", "t7"), HOST: "h", METHOD: "GET"}
    assert list(index.candidates(look.__getitem__)) == [5, 7]


def test_rules_that_nothing_tells_apart_are_all_candidates() -> None:
    """The index has nothing to say about them."""
    index = RuleIndex([Entry(number, {}) for number in range(FEW + 5)], ATTRIBUTES)
    assert list(index.candidates(lambda attribute: "")) == list(range(FEW + 5))


def test_a_brace_makes_no_template_of_a_header() -> None:
    """A DENY on `*{x}` must be found among many."""
    wanted = [f"t{number}" for number in range(20)] + ["*{x}", "{x}*", "a{x}", "*}"]
    index = RuleIndex([Entry(number, {TENANT: (text,)}) for number, text in enumerate(wanted)], ATTRIBUTES)
    for value in ("foo{x}", "a{x}", "{x}foo", "*{x}"):
        look: dict[AttributeId, Value] = {PATH: "/a", TENANT: (value,), HOST: "h", METHOD: "GET"}
        matching = {number for number, text in enumerate(wanted) if compile_matcher([text])(value)}
        assert matching <= set(index.candidates(look.__getitem__))


def test_h09_rules_of_many_values_do_not_multiply() -> None:
    """Nine rules of forty paths, hosts, tenants and methods: 2,560,000 places, if each combination had one."""
    wanted: dict[AttributeId, tuple[str, ...]] = {
        attribute: tuple(f"/{number}" for number in range(40)) for attribute in ATTRIBUTES
    }
    steps = sum(1 for _ in RuleIndex.building([Entry(number, wanted) for number in range(FEW + 1)], ATTRIBUTES))
    assert steps < 100
    index = RuleIndex([Entry(number, wanted) for number in range(FEW + 1)], ATTRIBUTES)
    look: dict[AttributeId, Value] = {PATH: "/39", HOST: "/38", TENANT: ("/37",), METHOD: "/0"}
    assert list(index.candidates(look.__getitem__)) == list(range(FEW + 1))


def test_a_header_sent_many_times_is_looked_up_once() -> None:
    """Eight headers, each sent twelve times, would be 12 ** 8 ways through the index."""
    headers = [Key(Attribute.HEADER, (f"x-{number}",)) for number in range(8)]
    rules = [dict.fromkeys(headers, ("on", "o*", "*n")) | {METHOD: (f"M{number}",)} for number in range(FEW + 1)]
    index = RuleIndex([Entry(number, {**one}) for number, one in enumerate(rules)], (*headers, METHOD))
    asked_count = 0

    def look(attribute: AttributeId) -> Value:
        nonlocal asked_count
        asked_count += 1
        return "M3" if attribute == METHOD else ("on",) * 6 + ("oon",) * 6

    assert 3 in index.candidates(look)
    assert asked_count < 10_000


def test_building_goes_in_slices() -> None:
    """So that requests need not wait for a large policy."""
    building = RuleIndex.building([Entry(n, {PATH: (f"/{n}",)}) for n in range(10_000)], ATTRIBUTES)
    assert sum(1 for _ in building) > 50
