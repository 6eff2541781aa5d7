"""Queries: from what is asked for to SQL expressions, and to the answer."""
