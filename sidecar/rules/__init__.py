"""Decisions: pure functions of a frozen `Snapshot`. No I/O, no clock, no chance, no trio.

The proxy enforces with these, and the control plane explains and tests with the very same (design.md, decision 9).

    snapshot.py   what the control plane told this sidecar, as frozen values
    decode.py     the wire form -> Snapshot, whole or not at all; decode_policies.py, decode_values.py and
                  decode_trust.py are its parts
    facts.py      what is known of one request: the connection's peer, the verified token
    paths.py      one canonical path per request: matched, routed and forwarded
    keys.py       the attributes a `when` condition may name; header_names.py, which headers
    match.py      Istio's string matching: exact, prefix, suffix, presence, path templates; addresses.py, that of IPs
    authz.py      may this caller do this? Facts -> Permit | Denied. Read its docstring first, then in this order:
      conditions.py    the fields of a rule, compiled to tests of attributes (request_facts.py has those of a request)
      compiled.py      a rule, and what is left of it once the caller is known
      rule_index.py    which rules can match at all
      judge.py         verdicts on requests of callers for whom the same rules are left, remembered
      book.py          all rules grouped by callers, and the authorizer of one caller
      verdict.py       Permit and Denied
    jwt.py        is this token what it says? jwt_json.py reads it strictly, jwt_keys.py knows what may have signed it,
                  jwt_urls.py where keys may be fetched from
    jwt_svid.py   the same for the tokens that say who a workload is
    explain.py    why, and what was the nearest miss; secrets.py, which headers are not shown
    routing.py    a Host and port -> which service, which of its ports
    slices.py     long computations in slices
    balance.py    which endpoint: power of two choices
    errors.py     RulesError and its kinds
"""
