"""A local Sigstore, NOT FOR PRODUCTION: certificate authority, CT key, Rekor v1 log and identity tokens on loopback.

It speaks the HTTP APIs of Fulcio, Rekor v1 and Google's metadata server, so that on a laptop and in tests the code path
of production is the one that runs. Its keys are random for each state folder and kept there; its names say what it is;
it refuses any address but loopback; and it can be told to fail (`faults.py`). Left out of what is deployed.

    state.py      keys, entries and settings in one SQLite file     merkle.py    the RFC 6962 tree
    authority.py  certificates with embedded SCTs                   entries.py   dsse and intoto: bodies and index keys
    fulcio.py     Fulcio's API                                      log.py       append, prove, search
    identity.py   identity tokens and the metadata server           rekor.py     Rekor v1's API
    trust.py      the ClientTrustConfig for stock tools             faults.py    failing on purpose, and counting
    server.py     all of it on one port; `DevSigstore`              serve.py     as a process
    reply.py      a request and its answer

The admin paths are ours: `GET` or `PUT /__dev__/fault` (a text such as `log:before`, empty for none),
`GET /__dev__/calls`, and `/__dev__/as/EMAIL`, below which the metadata server serves another identity.
"""
