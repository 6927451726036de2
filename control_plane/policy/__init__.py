"""What operators write, made into what sidecars enforce. No I/O here.

model.py     ParsedResource, one Spec a kind, Selection; PolicyErrors with file, line, column, field and hint
documents.py YAML text -> nodes with places, strictly: no anchors, tags, duplicate keys or guessed types
reader.py    nodes -> typed values; collects every problem, not only the first
values.py    what a principal, path, host, address ... may look like
authorization.py (with when.py), peer_authentication.py, request_authentication.py, meshconfig.py   one kind each
selection.py, own_annotations.py   what several kinds share: whom they select, what their annotations say to us
parse.py     parse_documents: the way in
check.py     lint of one document: legal, but probably not what was meant
across.py    the same of all documents together, and what is wrong with them
compile.py   what selects one workload; mtls.py makes all its PeerAuthentications into one
wire.py      how that travels
explain.py   what the evaluator says about one request
impact/      who gains and who loses what by a change
rehearse/    policies tried out before they are in force: tests, recorded calls, lint
"""
