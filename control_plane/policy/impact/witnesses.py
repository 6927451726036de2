"""Values that match a pattern of a policy, and values that just do not.

Exactness rests on this file: two requests that some rule tells apart must be told apart by two of these values. For
addresses that is certain (both ends of every block and their neighbours are there). For text it holds for every pattern
alone and for every two together (a prefix and a suffix, a template and anything); a value that only three patterns
together single out may be missing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from sidecar.rules.match import ANY_SEGMENTS, ONE_SEGMENT, Shape, is_template, shape_of

WORDS_MAX = 50
MEETINGS_MAX = 2_000
"""Pairs of patterns that are met; beyond it only patterns alone."""
_OUTSIDE = ("198.18.0.1", "203.0.113.9", "192.0.2.1", "2001:db8::1", "100.64.0.1")
"""Documentation and test networks (RFC 5737, RFC 2544, RFC 3849): most likely in no block."""


def unlike(patterns: Iterable[str]) -> str:
    """A word that is in none of the patterns, and that none of them ends it or begins it."""
    texts = tuple(text for pattern in patterns if (text := pattern.strip("*")) not in ("", "/"))
    words = [
        f"{letter}{number}{end}"
        for number in range(WORDS_MAX)
        for letter, end in zip("zqxjkvwy", "qxzvjyku", strict=True)
    ]
    for word in words:
        begins = word.startswith(texts) or f"/{word}".startswith(texts)
        if not (begins or word.endswith(texts) or any(word in text for text in texts)):
            return word
    return words[0]  # then some line may miss an exception


def texts(patterns: Sequence[str]) -> list[str]:
    """For values that are plain text."""
    word = unlike(patterns)
    found: dict[str, None] = {word: None}
    starts, ends = [], []
    for pattern in patterns:
        shape, text = shape_of(pattern)
        if shape is Shape.PREFIX:
            starts.append(text)
            found |= dict.fromkeys((text + word, text))
        elif shape is Shape.SUFFIX:
            ends.append(text)
            found |= dict.fromkeys((word + text, text))
        elif shape is Shape.EXACT:
            found |= dict.fromkeys((text, text + word))
    if len(starts) * len(ends) <= MEETINGS_MAX:
        found |= dict.fromkeys(start + word + end for start in starts for end in ends)
        found |= dict.fromkeys(start + end for start in starts for end in ends)
    return list(found)


def paths(patterns: Sequence[str]) -> list[str]:
    """For canonical paths: every one begins with a slash."""
    word = unlike(patterns)
    plain = [pattern for pattern in patterns if not is_template(pattern)]
    templates = [pattern for pattern in patterns if is_template(pattern)]
    found = dict.fromkeys(
        text if text.startswith("/") else f"/{text}" for text in (texts(plain) if plain else [word]) if text
    )
    ends = [pattern[1:] for pattern in plain if pattern.startswith("*") and pattern != "*"]
    found |= dict.fromkeys(f"/{word}{end}" if end.startswith("/") else f"/{word}/{end}" for end in ends)
    for pattern in plain:  # one level further down, and what lies beside
        if not pattern.startswith("*"):
            base = pattern.rstrip("*").rstrip("/")
            found |= dict.fromkeys((base or "/", f"{base}/{word}", f"{base}/{word}/{word}"))
    for template in templates:
        found |= dict.fromkeys(_filled(template, one, many) for one in (word,) for many in (word, f"{word}/{word}"))
        found |= dict.fromkeys(_filled(template, word + end.lstrip("/"), word + end) for end in ends)
        found[_filled(template, word, word) + f"/{word}"] = None
    others = list(found)
    if len(templates) * len(others) <= MEETINGS_MAX:
        found |= dict.fromkeys(_met(template, other, word) for template in templates for other in others)
    return list(found)


def addresses(blocks: Sequence[str]) -> list[str]:
    """Both ends of each block and what lies next to them, and addresses in no block."""
    found: dict[str, None] = {}
    for block in blocks:
        network = ipaddress.ip_network(block)
        first, last = int(network.network_address), int(network.broadcast_address)
        make = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
        for number in (first, last, first - 1, last + 1):
            if 0 <= number < 2**network.max_prefixlen:
                found[str(make(number))] = None
    return [*found, *(one for one in _OUTSIDE if one not in found)]


def ports(named: Iterable[str], served: Iterable[int]) -> list[str]:
    """Those a policy names, those that are served, and one that is neither if none is known to be served."""
    found = dict.fromkeys((*map(str, sorted(served)), *named))
    if not found.keys() & set(map(str, served)):
        found[next(str(port) for port in range(1, 65_536) if str(port) not in found)] = None
    return list(found)


def _filled(template: str, one: str, many: str) -> str:
    return template.replace(ANY_SEGMENTS, many).replace(ONE_SEGMENT, one)


def _met(template: str, other: str, word: str) -> str:
    """The template's path whose free segments are the other's at the same places."""
    wanted, given = template.split("/"), other.split("/")
    spare = max(len(given) - len(wanted) + 1, 1)
    filled: list[str] = []
    for want in wanted:
        at = len(filled)
        if want == ONE_SEGMENT:
            filled.append(given[at] if at < len(given) and given[at] else word)
        elif want == ANY_SEGMENTS:
            filled += given[at : at + spare] or [word]
        else:
            filled.append(want)
    return "/".join(filled)
