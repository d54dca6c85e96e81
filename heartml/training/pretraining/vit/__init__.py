"""Pre-training of a small vision transformer on log-mel spectrograms, saved in M2D's format.

A method makes a `Learner` from a start and a corpus: `masked`, `contrastive`, `supervised`. `train` runs the loop.
"""
