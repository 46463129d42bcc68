"""Fuzzing: `python -m tests.fuzz`, or `make fuzz`. What strangers, upstreams, the log or deployers send, at random.

`parsers.py` and `world.py` say what is called and what must hold, `mutation.py` changes cases, `fuzzer.py` counts, and keeps
what fails in `corpus/`, where the cases are that everything begins with: a file a case, a folder a target.

The cases come from a seeded generator of ours and not from a coverage-guided fuzzer: they are the same on every machine, and
the whole service answers hundreds a second, which it does not when each of its lines is counted. What takes the place of
coverage is the outcome: a case that ends in a way that no case before it ended in is one to go on from.
"""
