"""Which hosts are this machine, and listening."""

import contextlib
import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3retriever.errors import InvalidArgumentError
from m3retriever.hosts import is_this_machine, listening


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "0:0:0:0:0:0:0:1", "localhost", "LocalHost", "localhost.localdomain"]
)
def test_loopback_addresses_and_their_name_are_this_machine(host):
    assert is_this_machine(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "10.0.0.7", "128.0.0.1", "127.0.0.1.example.com", "localhost.example.com", "127.1", "mine"]
)
def test_no_other_host_is(host):
    assert not is_this_machine(host)


@given(st.ip_addresses())
def test_an_address_is_this_machine_as_the_standard_library_says(address):
    assert is_this_machine(str(address)) is address.is_loopback is ipaddress.ip_address(str(address)).is_loopback


def test_a_port_is_listened_at_and_taken_until_it_is_closed():
    with contextlib.closing(listening("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with pytest.raises(InvalidArgumentError, match=f"port {port} is taken; choose another with --port"):
            listening("127.0.0.1", port)
    listening("127.0.0.1", port).close()


def test_a_port_whose_server_has_just_hung_up_on_a_client_is_free():
    with contextlib.closing(listening("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            one.accept()[0].close()  # the system remembers the connection of whoever closes it first, for a minute
            assert client.recv(1) == b""
    listening("127.0.0.1", port).close()


@pytest.mark.parametrize("port", [-1, 65_536])
def test_what_is_no_port_is_refused(port):
    with pytest.raises(InvalidArgumentError, match=f"port must be from 0 to 65535; got {port}"):
        listening("127.0.0.1", port)


@pytest.mark.parametrize(("host", "why"), [("no.such.host.invalid", "there is no host"), ("192.0.2.1", "cannot listen on")])
def test_a_host_that_is_not_ours_is_refused_in_words(host, why):
    with pytest.raises(InvalidArgumentError, match=why):
        listening(host, 0)
