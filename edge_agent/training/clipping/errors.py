"""Why a model cannot be trained with privacy, or not by book-keeping."""

from shared.errors import FleetlearnError


class UnclippableModelError(FleetlearnError):
    """A model of which no example has a gradient of its own, or none that any engine sees whole."""

    code = "unclippable_model"


class UnsupportedLayerError(UnclippableModelError):
    """A layer that one engine does not take; another may."""

    code = "unsupported_layer"
