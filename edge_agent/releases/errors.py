"""Why a release is not installed: one family, each with one clear sentence that the operator sees for the device."""

from typing import ClassVar

from shared.errors import FleetlearnError


class ReleaseError(FleetlearnError):
    """A release that this device does not install; what it serves is untouched."""

    code = "release"
    is_worth_retrying: ClassVar[bool] = False
    """Whether the same install may succeed by itself later; otherwise somebody must act."""


class FetchError(ReleaseError):
    """Bytes did not come, or not the right ones. What came so far is kept where it may be part of the right ones."""

    code = "release_fetch"
    is_worth_retrying = True


class NotFoundError(FetchError):
    """The coordinator has no file of this name."""

    code = "release_file_not_found"
    is_worth_retrying = False


class IncompleteDownloadError(FetchError):
    """The connection ended before the file did."""

    code = "release_download_incomplete"


class WrongLengthError(FetchError):
    """More bytes came than were signed for."""

    code = "release_wrong_length"
    is_worth_retrying = False


class WrongHashError(FetchError):
    """The bytes that came are not the bytes that were signed."""

    code = "release_wrong_hash"
    is_worth_retrying = False


class UntrustedMetadataError(ReleaseError):
    """Release metadata that cannot be believed."""

    code = "release_untrusted"


class WrongSignatureError(UntrustedMetadataError):
    """Metadata not signed by the keys this device trusts."""

    code = "release_wrong_signature"


class RollbackError(UntrustedMetadataError):
    """Metadata older than what this device has already verified."""

    code = "release_rollback"


class ExpiredMetadataError(UntrustedMetadataError):
    """Metadata past its expiry: the coordinator is behind, or somebody keeps newer metadata from this device."""

    code = "release_metadata_expired"


class MixAndMatchError(UntrustedMetadataError):
    """Metadata files that do not belong together."""

    code = "release_mix_and_match"


class UnknownReleaseError(UntrustedMetadataError):
    """The signed metadata does not name this release."""

    code = "release_not_signed"


class IncompatibleReleaseError(ReleaseError):
    """A sound release that this device's runtime cannot serve."""

    code = "release_incompatible"


class SelfTestFailedError(ReleaseError):
    """On this device the model does not give the recorded outputs."""

    code = "release_self_test_failed"


class DamagedReleaseError(ReleaseError):
    """Files on this device are not what was installed."""

    code = "release_damaged"


class NoTrustedRootError(ReleaseError):
    """This device was never given root metadata to trust."""

    code = "release_no_trusted_root"


class StorageError(ReleaseError):
    """This device could not write."""

    code = "release_storage"
