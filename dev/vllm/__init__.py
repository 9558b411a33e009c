"""The real vLLM, in its build for CPUs, and what its contract with Modelyard needs: a tiny model, a running server."""
