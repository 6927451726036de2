"""The mesh's certificate authority: one root, made at first start, that signs every SVID itself.

The map, in reading order:

    errors      one tree; a state that does not open says what is wrong, where, and what to do
    authority   CertificateAuthority: open (or create, once), then issue. All that others need
    signer      build, sign, verify what was signed; nothing leaves that `certs.verify` would refuse
    template    what stands in a certificate: pure functions from facts to an unsigned certificate
    root        the root's key and certificate as one value, and what must be true of them
    keystore    where they are kept: which files, in which state, created all or none
    files       directories and files that only their owner may touch
    keys        the root's private key at rest: AES-256-GCM under a key-encryption key

Time and randomness are arguments. Nothing here speaks to the network.
"""
