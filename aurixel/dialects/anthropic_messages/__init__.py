"""The dialect `anthropic_messages`: its requests, its replies as they are metered, and its way to and from the neutral form."""
