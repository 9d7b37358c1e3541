"""Why a model is not packaged: the gates, with their figures."""

from shared.errors import FleetlearnError


class PackagingError(FleetlearnError):
    """A model version that cannot become a release."""

    code = "packaging"


class ExportFailedError(PackagingError):
    """The model cannot be written as ONNX."""

    code = "export_failed"


class ParityError(PackagingError):
    """The exported model does not compute what the trained one does."""

    code = "parity"

    def __init__(self, *, difference: float, difference_max: float) -> None:
        super().__init__(
            f"Expected fp32 ONNX outputs within {difference_max:g} of torch's, got {difference:g} away",
            hint="`fleetlearn task check` finds layers that do not export soundly.",
        )
        self.difference = difference


class AccuracyLossError(PackagingError):
    """Quantization costs more accuracy than the task tolerates."""

    code = "accuracy_loss"

    def __init__(self, *, fp32_accuracy: float, int8_accuracy: float, loss_max: float) -> None:
        super().__init__(
            f"Expected int8 to lose at most {loss_max:.3f} of accuracy on validation data, "
            f"got fp32 {fp32_accuracy:.4f}, int8 {int8_accuracy:.4f}",
            hint="Train longer, or give the task a larger tolerance if that loss is acceptable.",
        )
        self.fp32_accuracy = fp32_accuracy
        self.int8_accuracy = int8_accuracy


class NotFiniteError(PackagingError):
    """A metric that is NaN or infinite, which no manifest can say."""

    code = "metric_not_finite"

    def __init__(self, *, name: str, value: float) -> None:
        super().__init__(
            f"Expected a finite number as metric {name!r}, got {value}",
            hint="Look at the task's validation and unseen data: an empty part has no accuracy.",
        )
