"""The domain of the cluster, from the search list that a kubelet writes."""

import pytest

from modelyard.runtime.clusterdomain import find_cluster_domain


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("search modelyard-system.svc.cluster.local svc.cluster.local cluster.local\n", "cluster.local"),
        (
            "nameserver 10.96.0.10\nsearch a.svc.corp.example. svc.corp.example. corp.example.\n",
            "corp.example",
        ),
        # The operator's namespace is called `svc`.
        ("search svc.svc.cluster.local svc.cluster.local cluster.local\n", "cluster.local"),
        # The last line counts.
        ("search svc.old.example\nsearch a.svc.cluster.local svc.cluster.local\n", "cluster.local"),
        ("search SVC.Cluster.Local\n", "cluster.local"),
        # No pod's.
        ("nameserver 192.0.2.1\n", ""),
        ("search corp.example svc-tools.example\n", ""),
        ("search svc.\n", ""),
        ("", ""),
    ],
)
def test_the_domain_is_that_of_the_services(tmp_path, text, domain):
    file = tmp_path / "resolv.conf"
    file.write_text(text)
    assert find_cluster_domain(file) == domain


def test_without_a_file_it_is_not_known(tmp_path):
    assert find_cluster_domain(tmp_path / "none") == ""
