"""One inference request, in one direction: auth, policy, hold, routing, relay, settlement; it knows no HTTP server."""
