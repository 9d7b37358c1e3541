"""What can be wrong with a rollout as an operator asked for it."""

from cloud.errors import ConflictError, InvalidRequestError, NotFoundError


class UnknownRolloutError(NotFoundError):
    """No rollout has this id."""

    code = "unknown_rollout"


class InvalidPolicyError(InvalidRequestError):
    """Waves or gates that contradict themselves."""

    code = "invalid_rollout_policy"


class UnknownRolloutDeviceError(InvalidRequestError):
    """The request names a device that is not enrolled."""

    code = "unknown_rollout_device"


class NothingToMoveError(InvalidRequestError):
    """Every device is left out of the plan."""

    code = "nothing_to_move"


class ReleaseNotPublishedError(ConflictError):
    """The release has no signature yet, so no device could verify it."""

    code = "release_not_published"


class RolloutConflictError(ConflictError):
    """Another rollout holds a device of this one."""

    code = "rollout_conflict"


class StalePlanError(ConflictError):
    """Devices were asked for something newer since the plan was made."""

    code = "stale_rollout_plan"


class IllegalRolloutTransitionError(ConflictError):
    """The rollout's state does not allow this."""

    code = "illegal_rollout_transition"
