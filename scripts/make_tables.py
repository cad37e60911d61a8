"""Write tables and plots of finished runs: `python scripts/make_tables.py outputs/demo`."""

import sys

from macformer.tables import main

if __name__ == "__main__":
    sys.exit(main())
