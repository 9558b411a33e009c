"""Desired against live: what an apply would change, and nothing else."""

from copy import deepcopy

import pytest

from modelyard.kube.compare import is_applied

DESIRED = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "a", "namespace": "b", "labels": {"x": "1"}},
    "spec": {"egress": [{"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}]},
}


def live(desired=DESIRED, owned=None):
    found = deepcopy(desired)
    found["metadata"]["resourceVersion"] = "7"
    fields = owned or {"f:metadata": {"f:labels": {"f:x": {}}}, "f:spec": {"f:egress": {}}}
    found["metadata"]["managedFields"] = [
        {"manager": "modelyard", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields}
    ]
    return found


def test_the_same_object_needs_no_apply():
    assert is_applied(DESIRED, live())


def test_fields_of_others_do_not_matter():
    found = live()
    found["metadata"]["labels"]["other"] = "2"
    found["spec"]["extra"] = True
    assert is_applied(DESIRED, found)


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec["egress"][0]["ports"].pop(),
        lambda spec: spec["egress"][0]["ports"].append({"protocol": "TCP", "port": 443}),
        lambda spec: spec["egress"][0]["ports"][0].update(port=54),
        lambda spec: spec.pop("egress"),
    ],
)
def test_any_changed_value_needs_an_apply(change):
    found = live()
    change(found["spec"])
    assert not is_applied(DESIRED, found)


def test_a_field_that_we_set_and_no_longer_want_needs_an_apply():
    owned = {"f:metadata": {"f:labels": {"f:x": {}, "f:old": {}}}, "f:spec": {"f:egress": {}}}
    found = live(owned=owned)
    found["metadata"]["labels"]["old"] = "1"
    assert not is_applied(DESIRED, found)


def test_a_list_that_is_shared_may_hold_items_of_others():
    desired = {"spec": {"containers": [{"name": "engine", "image": "i"}]}}
    owned = {"f:spec": {"f:containers": {'k:{"name":"engine"}': {".": {}, "f:image": {}, "f:name": {}}}}}
    found = live({"metadata": {}, **deepcopy(desired)}, owned)
    found["spec"]["containers"].insert(0, {"name": "injected", "image": "j"})
    assert is_applied(desired, found)
    owned["f:spec"]["f:containers"]['k:{"name":"gone"}'] = {".": {}, "f:name": {}}
    assert not is_applied(desired, found)


def test_an_entry_of_a_map_that_is_one_value_goes_when_it_is_not_wanted_any_more():
    """A Service's selector is owned as a whole: its entries are in no path."""
    desired = {**DESIRED, "spec": {"selector": {"app": "a"}}}
    owned = {"f:metadata": {"f:labels": {"f:x": {}}}, "f:spec": {"f:selector": {}}}
    found = live(desired, owned)
    assert is_applied(desired, found)
    found["spec"]["selector"]["component"] = "engine"
    assert not is_applied(desired, found)
    # Where each entry has its owner, those of others stay.
    single = live(desired, {"f:spec": {"f:selector": {"f:app": {}}}})
    single["spec"]["selector"]["component"] = "engine"
    assert is_applied(desired, single)
