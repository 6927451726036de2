"""The mesh's certificate authority: roots, the intermediates they sign, and the keys that sign JWT-SVIDs.

A root signs intermediates, the active intermediate signs every leaf. All of them are in the store, their private keys
sealed under a key-encryption key in a file of its own; all of them are replaced by themselves. The map, in reading
order:

    errors      one tree; a state that does not open says what is wrong, where, and what to do
    authority   CertificateAuthority: open, tick, issue. All that others need
    slots       where authorities are in their lives, and what comes next: a table and pure functions of time
    refusals    what an operator may not do, with who would lose by it; alarms. Pure, too
    operations  steps, done: by time and by operators
    book        the authorities in memory and in the store: one transaction a step, with its audit record
    view        what is in force: bundle, signer, key set, what is revoked and tainted
    records     makes an authority: key, certificate, record; checked before it is written
    hierarchy   an issuer and its root; what an intermediate must be
    signer      build, sign, verify what was signed; nothing leaves that `certs.verify` would refuse
    jwt         the same for JWT-SVIDs
    template    what stands in a certificate: pure functions from facts to an unsigned certificate
    root        a root's key and certificate as one value, and what must be true of them
    offline     a root kept elsewhere: the request out, the chain in, a command that carries both
    opening     in which states the control plane starts, and in which it is refused
    rekey       another key-encryption key in the place of the one there is
    vouching    an operator's word for a database that nothing vouches for
    vault       private keys, sealed as they are stored, opened when they are needed
    keys        one private key at rest: AES-256-GCM under the key-encryption key
    kek         the file with that key
    legacy      the files of before authorities were in the store
    files       directories and files that only their owner may touch
    rehearse    plays a rotation on a copy of the mesh

Time and randomness are arguments. Nothing here speaks to the network.
"""
