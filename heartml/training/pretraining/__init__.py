"""Pre-training of the heart encoder: recordings with known heart states and labels in, a file of weights out. Pure."""
