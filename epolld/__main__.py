"""`python -m epolld`."""

import sys

from epolld.cli import main

sys.exit(main())
