"""The decision: a snapshot, a memory and a clock value in; a plan with reasons out. No I/O of any kind."""
