"""Sound files: read, checked, prepared, measured, and compared for near-duplicates.

Waveforms are `[time]`, full scale is 1.
"""
