"""What operators write, made into what sidecars enforce. No I/O here.

model.py     ParsedResource, PolicySpec, MeshConfigSpec; PolicyErrors with file, line, column, field and hint
yaml.py      YAML text -> nodes with places, strictly: no anchors, tags, duplicate keys or guessed types
reader.py    nodes -> typed values; collects every problem, not only the first
values.py    what a principal, path, host, method ... may look like
authorization.py, meshconfig.py   one kind of resource each
parse.py     parse_documents: the way in
check.py     lint: legal, but probably not what was meant
compile.py   which policies one workload needs, and their wire form
explain.py   what the evaluator says about one request
"""
