"""Users' tokens at the door: RequestAuthentication in the sidecar. Loaded only once a snapshot has one.

    authenticator.py  one request: find its token, verify it or say no, take it out, put claims into headers;
                      parks those whose issuer's keys are on their way
    places.py         where tokens are looked for in a head, and what is taken out of it
    memory.py         tokens that were verified, remembered: bounded
    store.py          the keys of all issuers, kept fresh (trio)
    keeper.py         when to fetch the keys of one issuer, and which hold now (sans-IO)
    fetch.py          one document by https, from an address that may be asked (trio)

What is true of a token is decided in `sidecar.rules.jwt`; which addresses may be asked, in `sidecar.rules.jwt_urls`.
"""
