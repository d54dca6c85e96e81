"""Where a registered model comes from, and where a recording went: read from what is stored, not from this folder.

`chain` goes from a version back to the recordings, `trace` from a recording forward to the versions.
"""
