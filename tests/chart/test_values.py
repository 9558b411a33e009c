"""Wrong values are refused with a message that names the field."""

import shutil
import tarfile

import pytest

from dev.charts.helm import CHART, HelmError
from tests.chart.combinations import FOLDER

README = CHART / "README.md"
PREVIOUS = FOLDER / "previous" / "modelyard-0.1.0.tgz"
"""The chart's first version, packaged."""

WRONG = [
    ("replicaCount=3", "replicaCount"),
    ("gateway.replicaz=3", "replicaz"),
    ("gateway.replicas=0", "/gateway/replicas"),
    ("gateway.anonymous=maybe", "/gateway/anonymous"),
    ("image.digest=sha256:abc", "/image/digest"),
    ("watchNamespaces={Team_A}", "/watchNamespaces/0"),
    ("operator.logLevel=TRACE", "/operator/logLevel"),
    ("operator.readInterval=0", "/operator/readInterval"),
    ("operator.podSecurityContext.runAsUser=0", "/operator/podSecurityContext/runAsUser"),
    ("gateway.podSecurityContext.runAsNonRoot=false", "/gateway/podSecurityContext/runAsNonRoot"),
    ("gateway.podSecurityContext.sysctls[0].name=x", "sysctls"),
    ("gateway.service.type=ExternalName", "/gateway/service/type"),
    ("gateway.drainSeconds=1", "/gateway/drainSeconds"),
    ("gateway.resources.limits.memory=1.5 GB", "/gateway/resources/limits/memory"),
    ("operator.highAvailability.replicas=1", "/operator/highAvailability/replicas"),
    ("operator.env.A-B=x", "A-B"),
    ("operator.affinity.nodeAfinity.x=y", "nodeAfinity"),
    ("gateway.affinity.podAntiAffinity.required=true", "required"),
    (
        "gateway.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution=x",
        "/gateway/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution",
    ),
    ("acceleratorClasses.l4.memry=24Gi", "memry"),
    ("acceleratorClasses.l4.price.onDemand=cheap", "/acceleratorClasses/l4/price/onDemand"),
    ("acceleratorClasses.L4.billing=PerHour", "/acceleratorClasses"),
    ("networkPolicy.metricsFrom[0].pods.x=y", "pods"),
    # Combinations that the chart itself refuses.
    ("clusterWide=true,watchNamespaces={a}", "leave watchNamespaces empty"),
    ("gateway.tls.enabled=true", "gateway.tls.secretName"),
    ("gateway.tls.enabled=true,gateway.tls.secretName=x,xds.tls.enabled=false", "xds.tls.enabled"),
    ("gateway.hostnames={a.example}", "gateway.parents"),
    ("gateway.parents={only-a-name}", "/gateway/parents/0"),
    ("gateway.heapMiB=2048", "gateway.heapMiB is 2048 and gateway.resources.limits.memory 1536Mi"),
    ("gateway.resources.limits.memory=1Gi", "keep the heap below the limit"),
    ("networkPolicy.enabled=true,networkPolicy.apiServerPorts=null", "networkPolicy.apiServerPorts"),
    ("gateway.maxDrainSeconds=40", "gateway.drainSeconds is 30 and gateway.maxDrainSeconds 40"),
    ("gateway.resources.limits.memory=0.9Gi", "keep the heap below the limit"),
    ("gateway.resources.limits.memory=1000M", "keep the heap below the limit"),
    # The API server would refuse them, after the rest of the release has been changed.
    ("gateway.service.nodePort=30080", "gateway.service.type"),
    ("gateway.service.externalTrafficPolicy=Local", "gateway.service.type"),
    ("gateway.service.loadBalancerClass=a", "gateway.service.type"),
    ("gateway.service.type=NodePort,gateway.service.loadBalancerSourceRanges={10.0.0.0/8}", "LoadBalancer"),
    ("openshift.modelSCC=true,clusterWide=true", "openshift.modelSCC"),
    # They would stand there twice, or the pods would not be found.
    (r"commonLabels.app\.kubernetes\.io/version=v1", "commonLabels has app.kubernetes.io/version"),
    (r"operator.podLabels.app\.kubernetes\.io/component=a", "operator.podLabels"),
    (r"gateway.podLabels.modelyard\.dev/active=true", "gateway.podLabels"),
    ("operator.env.HOME=/home", "operator.env has HOME"),
    ("operator.env.POD_UID=x", "operator.env has POD_UID"),
    # The operator would not reach its proxy.
    ("networkPolicy.enabled=true,operator.env.HTTPS_PROXY=http://proxy:3128", "networkPolicy.hubPorts"),
    ("networkPolicy.enabled=true,operator.env.https_proxy=http://proxy/", "a proxy on port 80"),
    ("networkPolicy.hubPorts={443,443}", "/networkPolicy/hubPorts"),
    # Names of Services.
    ("nameOverride=a.b", "fullnameOverride"),
    ("fullnameOverride=1a", "fullnameOverride"),
]


@pytest.mark.parametrize(("values", "named"), WRONG)
def test_wrong_value_is_named(helm, values, named):
    with pytest.raises(HelmError) as error:
        helm.template(CHART, (), f"--set={values}")
    # Helm has named fields with dots or slashes.
    assert named.strip("/").replace("/", ".") in str(error.value).replace("/", ".")


def test_values_of_the_first_version_are_upgraded_as_the_readme_says(helm, tmp_path):
    """Values that are new since then have no defaults with --reuse-values, and the chart cannot do without them."""
    upgrade = [
        line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("$ helm upgrade")
    ]
    assert [line for line in upgrade if "--reset-then-reuse-values" in line]
    assert not [line for line in upgrade if "--reuse-values" in line]
    shutil.copytree(CHART, tmp_path / "chart")
    with tarfile.open(PREVIOUS) as package:
        old = package.extractfile("modelyard/values.yaml")
        assert old is not None
        (tmp_path / "chart" / "values.yaml").write_bytes(old.read())
    with pytest.raises(HelmError, match="nil pointer"):
        helm.template(tmp_path / "chart")
