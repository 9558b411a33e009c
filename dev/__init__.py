"""Development: local cluster, local nodes, engine stand-in, Envoy runner, load generator, demo."""
