"""The store: one contract for every implementation, a plain model of it, and the faults it must bear."""
