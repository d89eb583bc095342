"""Several workers as one gateway: a supervisor that starts them, keeps them running and speaks for all on the ops port.

A worker is a process of its own and a node of its own: incarnation, journal slot, memory. They share the port
(`SO_REUSEPORT`), the store, and nothing else. The supervisor touches no request and no money, and opens no store.
"""

from aurixel.workers.supervisor import supervise

__all__ = ["supervise"]
