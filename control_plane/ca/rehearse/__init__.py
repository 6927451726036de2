"""A rotation played before it is done: on a copy of the mesh as it is, under a simulated clock.

The map, in reading order:

    model       what is known of the mesh when it begins, and what comes out: steps, and who would fail
    mesh        the copy: sidecars that renew, learn of authorities, go and come back; pure state
    judge       who of them could not talk to the others, and why
    play        the clock: the next thing that happens, the steps `control_plane.ca.slots` says are due, and the report

The steps are decided by the functions that decide in production; only what they ask for is imitated here (an authority
is a record without a key). Nothing waits, nothing is random, nothing is changed.
"""
