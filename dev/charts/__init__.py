"""What is generated for the Helm charts and the kustomize bases, from the code and from each other."""
