"""A local Kubernetes control plane from real binaries, without root and without containers.

`ControlPlane` runs etcd, kube-apiserver, kube-scheduler and kube-controller-manager (and KWOK on
request) as child processes on loopback ports of their own, so several can run side by side.
`python -m dev.cluster --help` is the command line.
"""
