"""The ledger: every line of docs/ledger.md that can be seen from outside, and the crashes between its steps."""
