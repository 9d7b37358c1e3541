"""What can be wrong with certificates."""

from cloud.errors import CoordinatorError, InvalidRequestError


class MalformedRequestError(InvalidRequestError):
    """Not a certificate signing request, or one with a key we do not take."""

    code = "malformed_certificate_request"


class WrongNameError(InvalidRequestError):
    """A certificate signing request for another name than the device's."""

    code = "certificate_for_other_name"


class DamagedKeyFilesError(CoordinatorError):
    """The CA's files do not belong together or cannot be read."""

    code = "damaged_key_files"
