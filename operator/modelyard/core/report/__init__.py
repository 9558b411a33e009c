"""What manifests mean before they are applied: the cluster's own decision, told as a report."""
