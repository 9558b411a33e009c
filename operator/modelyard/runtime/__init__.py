"""The process: gather, decide, apply. Wiring and loops; no decisions."""
