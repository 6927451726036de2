"""Decisions: pure functions of a frozen `Snapshot`. No I/O, no clock, no chance, no trio.

The proxy enforces with these, and the control plane explains and tests with the very same (design.md, decision 9).

    snapshot.py   what the control plane told this sidecar, as frozen values
    decode.py     the wire form -> Snapshot, whole or not at all
    match.py      Istio's string matching: exact, prefix, suffix, presence. The only matcher there is
    conditions.py the fields of a rule, compiled to tests
    authz.py      may this caller do this? Facts -> Permit | Denied; also specialised to one caller
    path_index.py which rules can match a path at all
    explain.py    why, and what was the nearest miss
    routing.py    a Host and port -> which service, which of its ports
    balance.py    which endpoint: power of two choices
    errors.py     RulesError and its kinds
"""
