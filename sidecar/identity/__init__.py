"""Who this sidecar is: getting an identity, holding it, keeping it fresh.

bootstrap   join token -> the first SVID, from a control plane known by the pin in the token
issued      checks on whatever the control plane issues, before it is used
handout     what workloads on this machine are given of it: workload_api (the SPIFFE Workload API, a package with a map
            of its own) and svid_files
source      the current SVID and bundle, their TLS contexts, and whoever wants to hear of a change
rotator     renews at half life, with back-off, on the wall clock
"""
