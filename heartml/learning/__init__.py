"""How a task is learnt from frames: what search, ensemble and the fitted model share. Pure but for bench.py."""
