"""Entities unlike the worker's own: what their events tell is what the database has."""
