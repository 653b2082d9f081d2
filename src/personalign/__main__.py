"""`python -m personalign` is the same as `personalign`."""

import sys

from personalign.cli import main

sys.exit(main())
