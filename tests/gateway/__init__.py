"""One request, in one direction: the rooms of the pipeline by themselves; whole requests are in tests/flow."""
