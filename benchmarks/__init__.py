"""Paired runs against Envoy (and HAProxy, where installed), on the same work, as ratios. `make bench` runs all of it.

    load (h2load) -> sidecar A -> mutual TLS, HTTP/2 -> sidecar B -> app (nghttpd, or nginx for HTTP/1.1)

Every box is its own process, on both sides; the sidecars share one core, load and app another. Ours is a real mesh: a
control plane, tokens, `hauberk sidecar --config` twice. Envoy is two processes with `--concurrency 1` and a static
configuration that says the same. README.md says how to run it in a hurry; docs/performance.md how to read it.

Read it in this order:

    scenarios.py     THE TABLE of scenarios 1 to 9, and the loads they are made of
    work.py          what both sides are told: 200 paths, 50 rules, headers, files served
    runner.py        the straight line: start both, warm up, measure in turn, round by round
    report.py        samples -> ratios -> a table to read, and results/latest.json
    __main__.py      the command line

    system.py        what a system under test is: start, where to aim, which processes to account for
    ours.py envoy.py haproxy.py     the three of them
    envoy_config.py  Envoy's static configuration as data
    certificates.py  the certificates that Envoy and HAProxy get
    crowd.py         500 workloads that join over the real API and never answer (scenario 8)
    idle.py          connections that are opened, used once and held (scenario 7)
    apps.py          the services behind sidecar B
    load.py          h2load: its command, its output, its log of requests
    account.py       CPU time and memory of a process, by the kernel's own accounting
    interpreter.py   which CPython runs our side
    tools.py         which programs are needed, and how to install them
    profile.py       one side only, under py-spy or perf

By themselves, and not part of `make bench`:

    straight_line.py  what a request costs between two engines: no socket, no TLS
    policy_propagation.py  how long a change of policy takes to all of 50 sidecars, and to end a stream
    fleet.py          a thousand sidecars: joining, issuing, pushing, a restart; fleet_members.py is their process
    rapid_reset.py    what an honest client notices of a rapid-reset attacker
"""
