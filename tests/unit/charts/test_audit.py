"""What is read from lines of an audit log."""

import json

from dev.charts.audit import Right, Use, describe, find_refused, find_unused, find_uses, read_events

USER = "system:serviceaccount:system:operator"
ROLE = {
    "metadata": {"namespace": "team"},
    "rules": [
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["create", "patch", "delete"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"], "verbs": ["update"]},
    ],
}


def event(
    verb: str,
    resource: str,
    name: str,
    *,
    group: str = "",
    namespace: str = "team",
    code: int = 200,
    allowed: bool = True,
) -> dict:
    return {
        "user": {"username": USER},
        "verb": verb,
        "requestURI": f"/{resource}/{name}",
        "requestReceivedTimestamp": "2026-11-30T00:00:00.000000Z",
        "objectRef": {"resource": resource, "apiGroup": group, "namespace": namespace, "name": name},
        "responseStatus": {"code": code},
        "annotations": {"authorization.k8s.io/decision": "allow" if allowed else "forbid"},
    }


def deployment(verb: str, **fields) -> dict:
    return event(verb, "deployments", "chat", group="apps", **fields)


def test_only_whole_lines_of_the_user_are_read(tmp_path):
    other = {**deployment("patch"), "user": {"username": "system:serviceaccount:other:operator"}}
    log = tmp_path / "audit.log"
    early = json.dumps(deployment("delete")) + "\n"
    log.write_text(early + "\n".join(json.dumps(item) for item in (deployment("patch"), other)) + '\n{"us')
    assert [item["verb"] for item in read_events(log, USER)] == ["delete", "patch"]
    assert [item["verb"] for item in read_events(log, USER, len(early))] == ["patch"]
    assert read_events(log, "system:serviceaccount:other:") == [other]
    assert read_events(log, USER[:-1]) == []


def test_an_apply_that_made_the_object_used_the_right_to_create():
    assert {use.verb for use in find_uses([deployment("patch")])} == {"patch"}
    assert {use.verb for use in find_uses([deployment("patch", code=201)])} == {"patch", "create"}


def test_what_was_refused_is_no_use():
    # By the authorizers; and by admission, such as in a namespace that ends.
    refused = [deployment("patch", code=403, allowed=False), deployment("patch", code=403)]
    assert find_uses(refused) == set()
    assert find_refused([*refused, deployment("delete")]) == refused
    assert describe(refused[0]) == "2026-11-30T00:00:00.000000Z patch /deployments/chat"


def test_a_request_for_no_resource_can_be_refused():
    version = {**deployment("get", allowed=False), "requestURI": "/version"}
    del version["objectRef"]
    assert find_uses([version]) == set()
    assert find_refused([version]) == [version]


def test_rights_count_in_their_namespace_and_for_the_object_that_they_name():
    uses = {
        Use("deployments.apps", "create", "team", "chat"),
        Use("deployments.apps", "delete", "other", "chat"),
        Use("secrets", "update", "team", "yours"),
    }
    assert find_unused(ROLE, uses) == {
        Right("deployments.apps", "patch"),
        Right("deployments.apps", "delete"),
        Right("secrets", "update", "mine"),
    }
    everywhere = {**ROLE, "metadata": {}}
    uses.add(Use("secrets", "update", "team", "mine"))
    assert find_unused(everywhere, uses) == {Right("deployments.apps", "patch")}
