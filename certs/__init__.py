"""What an identity is in the mesh. Shared by the control plane (which issues) and the sidecar (which checks).

The map, in reading order:

    errors      one tree; an error carries the row of the catalogue of bad inputs it belongs to
    spiffe_id   TrustDomain, SpiffeId: parsed once, never normalised, never equal to a str
    der         DER in, `cryptography` objects out, with size bounds; which keys are strong enough
    verify      check_leaf (is this certificate a legal SVID?), verify_chain (and does it lead to our anchors?)
    bundle      TrustBundle: the anchors of one trust domain; `pin`
    svid        X509Svid: a chain with its private key
    csr         certificate signing requests: make one, read one from a stranger
    authority_id  the name of a signing key, wherever it turns up
    revocation  Revocations: what is not trusted although its time has not run out
    node_key    the key that stays with a node and outlives its certificates: its statements
    succession  anchors that vouch for those after them

Everything here is a pure function of its arguments: no files, no sockets, no clock. It imports nothing of ours.
"""
