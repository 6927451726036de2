"""Policies tried out before they are in force: `hauberk policy test`, `diff` and `lint`. No control plane is needed.

    sources.py       files -> resources and policy tests, with their places; nothing may be there twice
    mesh.py          a mesh on paper: workloads and resources in, verdicts out, by the way that a mesh takes
    expectations.py  the kind PolicyTest, read strictly; words.py, its values
    trial.py         expectations held against the mesh on paper
    junit.py         what came of them for CI systems
    sarif.py         what was found and where, for code review

    records.py       the access log, line by line
    possible.py      verdicts where not everything is known: what could they be?
    replay.py        recorded calls judged by two sets of policies, and which verdicts change

    findings.py      what lint says: every code with its meaning
    cover.py         does one rule match whatever another matches? Never a yes that is not true
    lint.py          all checks of several documents together; lint_*.py are its parts

Verdicts are the evaluator's, always: documents are parsed, compiled for each workload and decoded as they are for a
sidecar, and `sidecar.rules` decides.
"""
