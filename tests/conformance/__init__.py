"""The rules of both OCI conformance suites for a registry that is only read, one test each.

    1.1.1   opencontainers/distribution-spec, conformance/, of the tag v1.1.1: its specs "Pull" and "Content Discovery"
    main    the suite that replaces it on the main branch, with OCI_API_PUSH=false and OCI_RO_DATA_*

A test says which of the two has its rule, in their own words. Where the spec's main branch is stricter than the suites (it
makes Docker-Content-Digest mandatory), so are the tests. Each runs for every way to name a repository: as Docker Hub's, with
its host in the path, below `r/`, and by `ns`. `test_suites.py` runs the suites themselves.
"""
