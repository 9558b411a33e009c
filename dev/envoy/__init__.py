"""The real Envoy for tests and the demo: its binary, a process runner, the descriptor extractor."""
