"""Processes of a cluster: failures that explain themselves, ends that leave nothing, folders with one owner."""

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from dev.cluster.certificates import CertificateAuthority
from dev.cluster.instance import Instance, InstanceBusyError
from dev.cluster.processes import CLAIMS, Component, ComponentError, ProcessId, free_ports
from dev.cluster.waiting import wait_until

SLEEP_FOREVER = "import signal; signal.pause()"


def component(folder: Path, program: str, *, ready: bool = True) -> Component:
    """Return a component that runs a Python program."""
    return Component("sample", [sys.executable, "-c", program], folder / "sample.log", lambda: ready)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A running process that no component started."""
    with subprocess.Popen([sys.executable, "-c", SLEEP_FOREVER]) as process:
        yield process
        process.kill()


def test_a_component_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    failing = component(tmp_path, "import sys; sys.exit('no such certificate')", ready=False)
    failing.start()
    with pytest.raises(ComponentError, match=r"(?s)sample ended with exit code 1.*sample\.log.*no such cert"):
        failing.wait_ready()


def test_a_component_that_hangs_is_reported_in_bounded_time(tmp_path: Path) -> None:
    hanging = component(tmp_path, SLEEP_FOREVER, ready=False)
    hanging.start()
    with pytest.raises(ComponentError, match="sample was not ready within 0 s"):
        hanging.wait_ready(timeout_s=0.2)
    hanging.stop()
    assert not hanging.running


def test_a_component_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    deaf = component(tmp_path, program)
    deaf.start()
    wait_until(lambda: "deaf" in deaf.tail(), "the component ignores SIGTERM")
    process = deaf.process_id
    deaf.stop(timeout_s=0.2)
    assert process is not None
    assert not process.alive()


def test_a_component_can_be_started_again(tmp_path: Path) -> None:
    sample = component(tmp_path, SLEEP_FOREVER)
    sample.start()
    first = sample.pid
    sample.start()
    assert sample.pid == first
    sample.kill()
    sample.start()
    assert sample.running
    assert sample.pid != first
    sample.stop()


def test_a_component_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    sample = component(tmp_path, "print('up', flush=True); " + SLEEP_FOREVER)
    thread = threading.Thread(target=sample.start)
    thread.start()
    thread.join()
    wait_until(lambda: "up" in sample.tail(), "the component runs")
    assert sample.running
    sample.stop()


def test_a_component_ends_with_its_owner_even_by_sigkill(tmp_path: Path) -> None:
    owner_program = f"""
import sys, pathlib
sys.path.insert(0, {str(Path.cwd())!r})
from dev.cluster.processes import Component
component = Component("sample", [sys.executable, "-c", {SLEEP_FOREVER!r}], pathlib.Path({str(tmp_path)!r}, "log"), bool)
component.start()
print(component.pid, flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", owner_program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = ProcessId.of(int(owner.stdout.readline()))
        assert child is not None
        assert child.alive()
        owner.kill()
    wait_until(lambda: not child.alive(), "the child has ended")


def test_leftovers_of_a_crash_are_ended_at_the_next_start(
    tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    left = ProcessId.of(stranger.pid)
    assert left is not None
    # An owner that was killed leaves its record; the kernel has dropped its lock.
    Instance(tmp_path).write("https://127.0.0.1:1", tmp_path / "kubeconfig", {"etcd": left})
    following = Instance(tmp_path)
    assert following.acquire() == ["etcd"]
    assert stranger.wait(10) == -signal.SIGKILL
    following.release()


def test_a_process_that_got_the_pid_of_a_leftover_is_spared(
    tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    actual = ProcessId.of(stranger.pid)
    assert actual is not None
    earlier = ProcessId(stranger.pid, actual.start_ticks - 1)
    Instance(tmp_path).write("https://127.0.0.1:1", tmp_path / "kubeconfig", {"etcd": earlier})

    following = Instance(tmp_path)
    assert following.acquire() == []
    assert actual.alive()
    following.release()


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    first, second = Instance(tmp_path), Instance(tmp_path)
    first.acquire()
    first.write("https://127.0.0.1:1", tmp_path / "kubeconfig", {})
    assert second.held()
    with pytest.raises(InstanceBusyError, match=f"process {os.getpid()} runs a cluster"):
        second.acquire()
    second.release()
    assert first.read() is not None, "who does not own the folder must not clear its record"
    first.release()
    assert not second.held()
    assert second.acquire() == []
    second.release()


def test_ports_are_distinct() -> None:
    assert len(set(free_ports(50))) == 50


def test_no_port_is_given_twice_here_or_in_another_process() -> None:
    """Of so many that are chosen and let go one by one, some would come again: nothing listens on them yet."""
    given = [port for _ in range(CLAIMS) for port in free_ports(1)]
    assert len(set(given)) == CLAIMS
    code = (
        f"from dev.cluster.processes import free_ports; print(*(free_ports(1)[0] for _ in range({CLAIMS})))"
    )
    root = Path(__file__).parents[2]
    other = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    found = {int(port) for port in other.stdout.split()}
    assert len(found) == CLAIMS
    assert not found & set(given)


def test_certificates_satisfy_strict_verifiers(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    ca = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign

    pair = authority.server("server", ["127.0.0.1"])
    server = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    server.verify_directly_issued_by(ca)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "kubernetes.default.svc" in names.get_values_for_type(x509.DNSName)
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert server.not_valid_before_utc < dt.datetime.now(dt.UTC) < server.not_valid_after_utc
    assert isinstance(server.public_key(), ec.EllipticCurvePublicKey)
    assert pair.key.stat().st_mode & 0o077 == 0, "keys are for their owner alone"

    client = authority.client("jane", "jane", ["readers", "writers"])
    subject = x509.load_pem_x509_certificate(client.certificate.read_bytes()).subject
    assert subject.rfc4514_string() == "CN=jane,O=writers,O=readers"
