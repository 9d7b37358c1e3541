"""What can be wrong with a device."""

from cloud.errors import ConflictError, ForbiddenError, NotFoundError


class UnknownDeviceError(NotFoundError):
    """No device has this name."""

    code = "unknown_device"


class DeviceRevokedError(ForbiddenError):
    """The operator took this device's access away; starting again does not help."""

    code = "device_revoked"


class DeviceIdTakenError(ConflictError):
    """Another device has, or had, this name; names are never used again."""

    code = "device_id_taken"
