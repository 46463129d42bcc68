"""Every interleaving of the real recorder (`lib/recorder.py`): its instances, its store and its log under one scheduler.

    collaborators.py  what the recorder is handed: each call is one question to the scheduler
    instance.py       the real Recorder as a function from its answers so far to its next call
    world.py          store, log, and everything that can happen next: interleavings, crashes, faults, losses
    promises.py       what must hold, judged at each entry of the log and at each answer
    explore.py        all schedules with visited states pruned, or a sample; why pruning loses nothing
    live.py           the same with instances on threads and a real SQLite store, to check the short cuts
    broken.py         recorders that must be caught

Covered. A step of the scheduler is one call: of the store, the log's search, the signer (certificate; last look; append), the
verifier, or who admits. Before each, an instance may crash or its time run out; each may succeed, fail, or succeed with the
answer lost; a call that was given up may still arrive at the store or the log any time later; a create may be repeated by the
store's client; a readable copy may get lost; the store is lost once, at any moment; the index names all entries, none, or not
the earliest ones. When nobody is left, one more comes, observes one of three digests, and meets no trouble.

    two instances, one request each, all of that, different digests     1.7e11 schedules in 60,564 states
    the same, both observe one digest                                   2.5e11 schedules in 29,885 states
    three, three digests, all but failing calls (marked `long`)         5.4e15 schedules in 232,797 states
    three, all of that; and with two of them asked twice                1,500 sampled schedules each; 20,000 marked `long`

In all of these no promise is broken, and the log shows two digests only where the recorder's docstring says so: each two
entries are judged by themselves, and no others are excused. 50 sampled ones are run on threads and SQLite. The first line
takes about 5 seconds of CPU, all unmarked tests under 20, the marked ones about 70.

Not covered. Requests that wait for another's lead in one instance, and a lead that outlives its request: to store and log
these are one instance more; `tests/test_recorder.py` has both, and a trust root that is replaced. What is behind the calls
(signer, search and verifier are in `tests/sighting/`): the verifier here refuses what it likes, and never accepts a forgery. A
store that breaks its contract, loses a part, or is lost twice.
"""
