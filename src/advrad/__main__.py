"""`python -m advrad` is `advrad`."""

import sys

from .cli import main

sys.exit(main())
