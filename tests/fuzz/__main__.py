"""`python -m tests.fuzz`: see `search.py`."""

import sys

from tests.fuzz.search import main

sys.exit(main())
