"""`python -m shared` is `fleetlearn`, for places where the script is not on the path."""

import sys

from shared.cli import main

sys.exit(main())
