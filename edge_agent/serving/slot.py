"""The one place that says what is served: swapped in a single assignment, read once per request.

A request that has read the old release finishes on it; the next one sees the new one. There is no moment without.
"""

from edge_agent.serving.errors import NotReadyError, UnknownModelError
from edge_agent.serving.session import LoadedRelease


class ServingSlot:
    """Holds the release that is served, or none before the first activation."""

    def __init__(self) -> None:
        self._release: LoadedRelease | None = None

    @property
    def release(self) -> LoadedRelease | None:
        return self._release

    def swap(self, release: LoadedRelease) -> None:
        """Serves this release from the next request on."""
        self._release = release

    def named(self, model_name: str, version: str | None = None) -> LoadedRelease:
        """The release under this model name. Raises NotReadyError before one is active, or UnknownModelError."""
        release = self._release
        if release is None:
            raise NotReadyError(
                "Expected an active release, got none yet",
                hint="Roll a release out to this device: `fleetlearn rollouts start`.",
            )
        schema = release.model.schema
        if model_name != schema.model_name or version not in (None, schema.model_version):
            got = model_name if version is None else f"{model_name} version {version}"
            raise UnknownModelError(f"Expected model {schema.model_name!r}, got {got[:160]!r}")
        return release
