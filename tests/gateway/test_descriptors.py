"""The committed descriptors are those of the shipped Envoy."""

import gzip

from dev.envoy.binary import envoy_binary
from dev.envoy.extract_descriptors import extract
from modelyard.gateway.protos import DESCRIPTOR_FILE


def test_descriptor_set_equals_the_shipped_binary():
    shipped = extract(envoy_binary()).SerializeToString(deterministic=True)
    assert gzip.decompress(DESCRIPTOR_FILE.read_bytes()) == shipped
