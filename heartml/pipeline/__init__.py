"""DVC's graph of stages: which stages are stale, how one is run, and how damage of a killed run is repaired."""
