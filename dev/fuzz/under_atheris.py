"""`python -m dev.fuzz.under_atheris`: libFuzzer, with its own options and folders of inputs.

`python -m dev.fuzz` calls it; it never returns, and ends the process.
"""

from __future__ import annotations

import sys

import atheris

# Before anything imports them: what is looked into is compiled anew, with counters.
with atheris.instrument_imports(include=["worker", "pamqp", "email_validator"]):
    from dev.fuzz.target import check

atheris.enabled_hooks.add("str")
atheris.Setup(sys.argv, check)
atheris.Fuzz()
