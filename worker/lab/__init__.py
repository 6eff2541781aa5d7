"""The pool lab: load tests of the connection pool, measured, modelled and explained."""
