"""``python -m mlclipsim``: the command line."""

import sys

from mlclipsim.cli import main

sys.exit(main())
