"""Order, group, transaction, outcome: what becomes of a command."""
