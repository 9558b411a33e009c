"""The local control plane, for real: it serves, isolates, refuses what a cluster refuses, and ends."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kubernetes import client

from dev.cluster.api import api_client
from dev.cluster.binaries import ensure_binaries
from dev.cluster.control_plane import ControlPlane
from dev.cluster.instance import Instance, InstanceBusyError, Record
from dev.cluster.processes import ProcessId
from dev.cluster.waiting import wait_until

COMPONENTS = ["etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager"]
COMMAND = [sys.executable, "-m", "dev.cluster"]


def processes(control_plane: ControlPlane) -> list[ProcessId]:
    """Return the running processes of a control plane."""
    found = [component.process_id for component in control_plane.components.values()]
    return [process for process in found if process is not None]


def namespaces(api: client.ApiClient) -> set[str]:
    """Return the names of a cluster's namespaces."""
    items = client.CoreV1Api(api).list_namespace().items
    return {str(item.metadata.name) for item in items if item.metadata}


def start_by_command(folder: Path, *options: str) -> tuple[subprocess.Popen[str], Record]:
    """Run `up` in a process of its own until the cluster is up; return it and what the folder records."""
    owner = subprocess.Popen(
        [*COMMAND, "up", "--folder", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert owner.stdout is not None
    said = []
    for line in owner.stdout:
        said.append(line)
        if line.startswith("Ctrl-C"):
            break
    record = Instance(folder).read()
    assert record is not None, "".join(said)
    return owner, record


def test_it_serves_the_pinned_version(control_plane: ControlPlane, api: client.ApiClient) -> None:
    assert client.VersionApi(api).get_code().git_version == "v1.37.2"
    assert list(control_plane.components) == [*COMPONENTS, "kwok"]
    assert all(component.running for component in control_plane.components.values())
    assert all(component.log.stat().st_size for component in control_plane.components.values())


def test_an_endpoint_slice_with_a_loopback_address_is_refused(
    api: client.ApiClient, make_namespace: Callable[..., str]
) -> None:
    """Why local endpoints must come from pods: the API server takes no loopback address here."""
    discovery = client.DiscoveryV1Api(api)
    namespace = make_namespace()

    def endpoint_slice(name: str, address: str) -> client.V1EndpointSlice:
        return client.V1EndpointSlice(
            metadata=client.V1ObjectMeta(name=name),
            address_type="IPv4",
            endpoints=[client.V1Endpoint(addresses=[address])],
            ports=[client.DiscoveryV1EndpointPort(port=8000, name="http")],
        )

    discovery.create_namespaced_endpoint_slice(namespace, endpoint_slice("routable", "10.1.2.3"))
    with pytest.raises(client.ApiException, match="loopback range") as refused:
        discovery.create_namespaced_endpoint_slice(namespace, endpoint_slice("loopback", "127.0.0.5"))
    assert refused.value.status == 422


def test_a_pod_may_have_a_loopback_address(api: client.ApiClient, make_namespace: Callable[..., str]) -> None:
    """The other half: what runs pods as local processes can say in their status where they listen."""
    core = client.CoreV1Api(api)
    namespace = make_namespace()
    pod = client.V1Pod(
        metadata=client.V1ObjectMeta(name="local"),
        spec=client.V1PodSpec(
            node_name="a-node-that-is-not-there",
            security_context=client.V1PodSecurityContext(
                run_as_non_root=True, seccomp_profile=client.V1SeccompProfile(type="RuntimeDefault")
            ),
            containers=[
                client.V1Container(
                    name="engine",
                    image="example.com/engine:1",
                    security_context=client.V1SecurityContext(
                        allow_privilege_escalation=False, capabilities=client.V1Capabilities(drop=["ALL"])
                    ),
                )
            ],
        ),
    )
    core.create_namespaced_pod(namespace, pod)
    address = {"status": {"podIP": "127.0.0.5", "podIPs": [{"ip": "127.0.0.5"}]}}
    patched = core.patch_namespaced_pod_status("local", namespace, address)
    assert patched.status is not None
    assert patched.status.pod_ip == "127.0.0.5"


def test_a_pod_that_breaks_restricted_pod_security_is_refused(
    api: client.ApiClient, make_namespace: Callable[..., str]
) -> None:
    pod = client.V1Pod(
        metadata=client.V1ObjectMeta(name="root"),
        spec=client.V1PodSpec(containers=[client.V1Container(name="c", image="example.com/engine:1")]),
    )
    with pytest.raises(client.ApiException, match="violates PodSecurity") as refused:
        client.CoreV1Api(api).create_namespaced_pod(make_namespace(), pod)
    assert refused.value.status == 403


def test_another_user_has_only_the_rights_that_rbac_gives(
    control_plane: ControlPlane, api: client.ApiClient, make_namespace: Callable[..., str]
) -> None:
    namespace = make_namespace()
    with api_client(control_plane.user_kubeconfig("jane", ["test-readers"])) as jane:
        as_jane = client.CoreV1Api(jane)
        with pytest.raises(client.ApiException, match="cannot list resource") as refused:
            as_jane.list_namespaced_config_map(namespace)
        assert refused.value.status == 403

        binding = client.V1RoleBinding(
            metadata=client.V1ObjectMeta(name="readers"),
            role_ref=client.V1RoleRef(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name="view"),
            subjects=[
                client.RbacV1Subject(api_group="rbac.authorization.k8s.io", kind="Group", name="test-readers")
            ],
        )
        client.RbacAuthorizationV1Api(api).create_namespaced_role_binding(namespace, binding)

        def listed() -> bool:
            try:
                return bool(as_jane.list_namespaced_config_map(namespace).items)
            except client.ApiException as error:
                if error.status == 403:  # the authorizer learns of the binding through a watch
                    return False
                raise

        wait_until(listed, "the binding gives the right to list")


def test_the_audit_log_has_every_change_and_no_read(
    control_plane: ControlPlane, api: client.ApiClient, make_namespace: Callable[..., str]
) -> None:
    core = client.CoreV1Api(api)
    namespace = make_namespace()
    core.create_namespaced_config_map(
        namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="noted"))
    )
    core.read_namespaced_config_map("noted", namespace)
    core.delete_namespaced_config_map("noted", namespace)
    assert control_plane.audit_log is not None
    events = [json.loads(line) for line in control_plane.audit_log.read_text().splitlines()]
    noted = [event for event in events if event["objectRef"].get("name") == "noted"]
    assert [(event["verb"], event["user"]["username"]) for event in noted] == [
        ("create", "admin"),
        ("delete", "admin"),
    ]
    assert {event["stage"] for event in events} == {"ResponseComplete"}


def test_two_run_side_by_side_and_a_stop_leaves_no_process(
    control_plane: ControlPlane, api: client.ApiClient, make_namespace: Callable[..., str], tmp_path: Path
) -> None:
    namespace = make_namespace()
    steps: list[str] = []
    with ControlPlane(tmp_path / "second", report=steps.append) as second:
        assert [step.split(" ")[0] for step in steps] == COMPONENTS, "a second start builds nothing"
        assert second.url != control_plane.url
        assert second.audit_log is None
        with api_client(second.kubeconfig) as other:
            assert namespace not in namespaces(other)
        running = processes(second)
        assert len(running) == len(COMPONENTS)
        with pytest.raises(InstanceBusyError, match=r"python -m dev\.cluster down"):
            ControlPlane(tmp_path / "second").start()
        assert all(process.alive() for process in running), "the refused start must harm nothing"
    assert not any(process.alive() for process in running)
    assert namespace in namespaces(api)


def test_the_api_server_can_go_and_come_back_with_its_data(tmp_path: Path) -> None:
    with ControlPlane(tmp_path) as control_plane, api_client(control_plane.kubeconfig) as api:
        kept = client.V1Namespace(metadata=client.V1ObjectMeta(name="kept"))
        client.CoreV1Api(api).create_namespace(kept)
        api_server = control_plane.components["kube-apiserver"]
        api_server.kill()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(control_plane.url.rpartition(":")[2])), timeout=2)
        api_server.start()
        api_server.wait_ready()
        assert "kept" in namespaces(api)


def test_a_killed_owner_leaves_no_process_and_the_next_start_works(tmp_path: Path) -> None:
    owner, record = start_by_command(tmp_path)
    with owner:
        assert all(process.alive() for process in record.components.values())
        owner.kill()
    with ControlPlane(tmp_path) as control_plane:
        assert not any(process.alive() for process in record.components.values())
        assert len(processes(control_plane)) == len(COMPONENTS)


@pytest.mark.parametrize("way", ["ctrl-c", "down"])
def test_the_command_stops_all_that_it_started(tmp_path: Path, way: str) -> None:
    owner, record = start_by_command(tmp_path, "--nodes", "h100:1=1,cpu=1")
    folder = ["--folder", str(tmp_path)]
    with owner:
        assert set(record.components) == {*COMPONENTS, "kwok"}
        shown = subprocess.run([*COMMAND, "status", *folder], capture_output=True, text=True, check=True)
        assert record.url in shown.stdout
        assert f"export KUBECONFIG={record.kubeconfig}" in shown.stdout
        if way == "ctrl-c":
            owner.send_signal(signal.SIGINT)
        else:
            subprocess.run([*COMMAND, "down", *folder], check=True, capture_output=True)
        assert owner.wait(60) == 0
    assert not any(process.alive() for process in record.components.values())
    after = subprocess.run([*COMMAND, "status", *folder], capture_output=True, text=True, check=False)
    assert (after.returncode, after.stdout.startswith("no cluster runs")) == (3, True)


def test_a_component_that_ends_by_itself_is_reported(tmp_path: Path) -> None:
    owner, record = start_by_command(tmp_path)
    with owner:
        assert owner.stdout is not None
        record.components["kube-scheduler"].kill()
        said = owner.stdout.read()
        assert owner.wait(60) == 1
    assert "kube-scheduler has ended unexpectedly" in said
    assert "kube-scheduler.log" in said
    assert not any(process.alive() for process in record.components.values())


def test_a_program_that_cannot_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "binaries"
    broken.mkdir()
    real = ensure_binaries()
    for program in ("etcd", "kube-scheduler", "kube-controller-manager"):
        (broken / program).symlink_to(real.path(program))
    monkeypatch.setattr("dev.cluster.control_plane.ensure_binaries", lambda _: type(real)(broken))
    control_plane = ControlPlane(tmp_path / "cluster")
    with pytest.raises(RuntimeError, match="kube-apiserver ended with exit code 1"):
        control_plane.start()
    assert processes(control_plane) == []
    assert not Instance(tmp_path / "cluster").held()
