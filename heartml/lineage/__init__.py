"""Where a model comes from and where a recording went: captured, read back, traced, exported, withdrawn."""
