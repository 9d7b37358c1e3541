"""Renews the device's certificate at two thirds of its life: same key, same name, switched atomically."""

from edge_agent.coordinator_client import CoordinatorClient
from edge_agent.identity import Identity, checked_certificate, read_identity, signing_request, write_certificate

CHECK_S = 3600.0
"""Longest time between two looks at the certificate."""
RETRY_S = 300.0
"""Time to the next try while the coordinator cannot be reached."""


def wait_s(identity: Identity, *, now: float) -> float:
    """Seconds until the certificate should be looked at again; 0: renew it now."""
    return min(max(0.0, identity.renew_at - now), CHECK_S)


def renew(identity: Identity, client: CoordinatorClient) -> Identity:
    """The identity with its new certificate, which is on disk: the next connection uses it.

    Raises:
        CoordinatorError: It did not come, or it is not this device's.
    """
    pem = client.renew(signing_request(identity.device_id, identity.key))
    checked = checked_certificate(pem, device_id=identity.device_id, key=identity.key, ca_pem=identity.ca_pem)
    write_certificate(identity.folder, checked)
    return read_identity(identity.folder)
