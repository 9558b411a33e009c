"""The demo: one command that shows a fleet of models serve, scale and sleep on a real Kubernetes API server.

`python -m dev.demo --help` is the command line, `make demo` the usual way to it. Data flow:

    settings → steps: cluster (control plane, local nodes) → operator and Envoy → examples/
             → chat (a held request) → traffic (a recorded trace) ──▶ Envoy ──▶ stand-ins
                observer (LLMDeployment status, Envoy's counters) → table (live) and report (at the end)
"""
