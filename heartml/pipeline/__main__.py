"""`python -m heartml.pipeline ADDRESS PARENT [--force]`: one stage in a process of its own."""

import sys

from heartml.pipeline.repro import main

sys.exit(main(sys.argv[1:]))
