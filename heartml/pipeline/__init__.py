"""DVC's graph of stages, run stage by stage: fresh or stale, whole or broken."""
