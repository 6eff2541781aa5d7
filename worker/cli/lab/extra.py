"""The lab's packages are an extra: a missing one is told with the command that installs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from worker.core.errors import Misconfigured

# What to install is called otherwise than what is imported, in parts.
_PACKAGES = {"altair", "jinja2", "numpy", "psutil", "scipy", "vl_convert"}


@contextmanager
def lab_packages() -> Iterator[None]:
    """Import within what needs the extra; raises `Misconfigured` where it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        raise Misconfigured(
            f"The lab needs the package {package}, which is not installed. "
            "Install the extra: pip install 'command-worker[lab]'"
        ) from error
