"""The bench: what the gateway costs beside a bare relay, in one run; figures, not verdicts. `make bench`.

Three kinds of processes on two cores: the relay under test alone on one, the scripted upstream and the load generator
on the other. Runs are interleaved (bare, gateway, bare, ...) and medians are quoted, since a shared machine drifts.
"""
