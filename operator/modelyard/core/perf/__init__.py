"""How fast a variant of a model runs, what a replica of it can sustain, and what running pods teach about it."""
