"""What keeps a data set from being learned from."""

from shared.errors import FleetlearnError


class DatasetError(FleetlearnError):
    """The data are missing, damaged, or not what the settings say."""

    code = "bad_dataset"
