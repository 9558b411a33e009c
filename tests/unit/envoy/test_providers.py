"""How many addresses of a provider's cluster Envoy may leave out."""

import pytest

from modelyard.core.routing import ExternalUpstream
from modelyard.render.envoy.providers import provider_cluster
from modelyard.render.envoy.settings import GatewaySettings


@pytest.mark.parametrize("addresses", [1, 2, 3, 4, 8, 16, 64, 90])
def test_all_addresses_of_a_provider_can_be_left_out_and_one_that_refuses_always_stays(addresses):
    cluster = provider_cluster(ExternalUpstream("acme", "large", "api.acme.example"), GatewaySettings())
    own, refusing = cluster["load_assignment"]["endpoints"]
    assert (own["priority"], refusing["priority"]) == (0, 1)
    most = cluster["outlier_detection"]["max_ejection_percent"]
    # The name stands for as many addresses as it is resolved to.
    hosts = addresses + len(refusing["lb_endpoints"])
    ejected = 0
    # Envoy 1.40, DetectorImpl::ejectHost: one more, while the share of those that are ejected is below the bound.
    while 100.0 * ejected / hosts < most and ejected < hosts:
        ejected += 1
    assert addresses <= ejected < hosts
    assert cluster["common_lb_config"]["healthy_panic_threshold"] == {"value": 0}
