"""Hostile messages, and what becomes of them.

documents.py   our own collection of JSON texts: valid, invalid, and what parsers differ in
hostile.py     messages made to break something: bodies, AMQP properties, raw content headers
schemas.py     Hypothesis strategies out of the commands' JSON Schemas
search.py    the coverage-guided search (`make fuzz`), and what each input must keep: target.py
"""
