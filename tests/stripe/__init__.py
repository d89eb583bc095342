"""Stripe without Stripe: the fixture of stripe-mock, and flows through a whole gateway."""
