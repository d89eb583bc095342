"""HTTP in, on Tornado: shapes, limits and connections only. What a request means is the gateway's business."""

from aurixel.edge.gateway_api import pages
from aurixel.edge.limits import Limits
from aurixel.edge.listen import reserve
from aurixel.edge.ops import Check, Itself, Ops, Readiness
from aurixel.edge.proxies import Proxies
from aurixel.edge.request import Heads
from aurixel.edge.routes import Routes
from aurixel.edge.server import Edge

__all__ = [
    "Check",
    "Edge",
    "Heads",
    "Itself",
    "Limits",
    "Ops",
    "Proxies",
    "Readiness",
    "Routes",
    "pages",
    "reserve",
]
