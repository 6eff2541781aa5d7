"""`python -m dev.fuzz`: see `search.py`."""

import sys

from dev.fuzz.search import main

sys.exit(main())
