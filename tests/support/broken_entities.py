"""A user's module that fails as it is imported."""

ENTITIES = (1 / 0,)
