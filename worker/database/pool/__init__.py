"""The pool of connections: bounded, fair, and measured."""
