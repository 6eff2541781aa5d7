"""Events, replies and dead letters: in order, confirmed, a group as one write."""
