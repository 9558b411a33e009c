"""Real Kubernetes nodes on this machine: kubelet, containerd and kube-proxy, with real containers.

For what `dev.nodes`, whose pods are plain processes, cannot show: images, Services, DNS, security contexts. Needs root.
Each node lives in network, mount and process namespaces of its own, so nothing that the machine runs is touched, and
everything of a node ends with the process that started it. `python -m dev.realnode --help` is the command line.
"""
