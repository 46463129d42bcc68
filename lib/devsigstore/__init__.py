"""A local Sigstore, NOT FOR PRODUCTION: certificate authority, CT key, Rekor v1 log and identity tokens on loopback.

It speaks the HTTP APIs of Fulcio, Rekor v1 and Google's metadata server, so that on a laptop and in tests the production code
path is the one that runs. Its keys are random for each state folder and kept there; its names say what it is; it refuses any
address but loopback; and it can be told to fail (`faults.py`). Left out of what is deployed.

    state.py      keys, entries and settings in one SQLite file      merkle.py     the RFC 6962 tree
    authority.py  certificates with embedded SCTs (Fulcio)           entries.py    dsse and intoto: canonical bodies, index keys
    identity.py   identity tokens and the metadata server            log.py        append, prove, search (Rekor v1)
    trust.py      the ClientTrustConfig for stock tools              faults.py     failing on purpose
    server.py     all of it on one port                              serve.py      as a process

The admin paths are ours: `GET` or `PUT /__dev__/fault` (a text such as `log:before`, empty for none), `GET /__dev__/calls`.
"""
