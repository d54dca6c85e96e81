"""`python -m heartml.pipeline ADDRESS PARENT [--force]`: one stage in a process of its own."""

import sys

from heartml.pipeline.stage_process import main

sys.exit(main(sys.argv[1:]))
