"""The addresses of this host's interfaces."""

from __future__ import annotations

import socket

import pytest

from guestmtce.runtime import interfaces


def test_the_loopback_address_is_here():
    assert "127.0.0.1" in interfaces.addresses_here()


def test_all_of_the_loopback_net_is_here():
    """It has one address only, and every other one of 127.0.0.0/8 serves as well."""
    assert interfaces.is_here("127.0.0.7")


@pytest.mark.parametrize("address", ["192.0.2.254", "2001:db8::254"])
def test_one_for_documentation_is_not(address):
    assert not interfaces.is_here(address)


def test_every_address_is_in_its_usual_spelling():
    found = interfaces.addresses_here()
    assert found
    for address in found:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        assert socket.inet_ntop(family, socket.inet_pton(family, address)) == address
