"""Tokens that were verified, remembered."""

from __future__ import annotations

from dataclasses import replace

from sidecar.jwks.memory import Memory
from sidecar.rules.jwt import Verified, verify
from sidecar.rules.jwt_keys import KeySet, read_key_set
from sidecar.rules.snapshot import JwtRule
from tests.sidecar.jwks.tokens import NOW, SigningKey, key_set, rule_of

KEY = SigningKey()
RULE = rule_of(KEY)
SET = read_key_set(key_set(KEY))


def keys(_rule: JwtRule) -> KeySet:
    return SET


def remembered(memory: Memory, text: str) -> Verified:
    verified = verify(text, (RULE,), keys, NOW)
    memory.put(text, verified)
    return verified


def test_a_token_that_comes_again_is_the_same_object() -> None:
    """The evaluator remembers its verdicts by that."""
    memory, text = Memory(), KEY.token()
    verified = remembered(memory, text)
    assert memory.get(text, (RULE,), keys, NOW + 1) is verified
    assert memory.get(KEY.token(sub="bob"), (RULE,), keys, NOW) is None


def test_e08_e22_what_changed_is_not_remembered() -> None:
    """It expired, its key set is another one, its rule is gone or another one, though an equal one."""
    text = KEY.token()
    rotated = read_key_set(key_set(KEY))
    for rules, its_keys, now in (
        ((RULE,), keys, NOW + 660),
        ((RULE,), lambda _rule: rotated, NOW),
        ((RULE,), lambda _rule: None, NOW),
        ((), keys, NOW),
        ((replace(RULE),), keys, NOW),
    ):
        memory = Memory()
        remembered(memory, text)
        assert memory.get(text, rules, its_keys, now) is None
        assert len(memory) == 0


def test_memory_is_bounded_and_the_one_used_longest_ago_goes() -> None:
    """By count, and by the octets of the tokens."""
    tokens = [KEY.token(sub=str(number)) for number in range(4)]
    memory = Memory(tokens_max=3)
    for text in tokens[:3]:
        remembered(memory, text)
    assert memory.get(tokens[0], (RULE,), keys, NOW)
    remembered(memory, tokens[3])
    assert [memory.get(text, (RULE,), keys, NOW) is not None for text in tokens] == [True, False, True, True]
    memory = Memory(octets_max=sum(map(len, tokens[:2])))
    for text in tokens:
        remembered(memory, text)
        remembered(memory, text)
    assert len(memory) == 2
    memory.clear()
    assert len(memory) == 0
