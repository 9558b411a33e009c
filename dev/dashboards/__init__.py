"""Grafana dashboards of charts/modelyard/dashboards, written from Python so that all have one form."""
