"""Which Flower apps this device has now: what the owner copies here or removes is told with the next heartbeat.

Light: an app's files are read when one of them changed, and none of its code ever is; that is the training process'.
"""

from pathlib import Path

from shared.flower_apps import FileStamp, installed_apps, stamps_of


class AppsHere:
    """The apps in the owner's folder, as of the last look.

    Args:
        folder: One folder below it for each installed app; None: the owner allows none.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.contents: dict[str, str] = {}
        """What each is called among tasks, to its version and content."""
        self._seen: list[FileStamp] | None = None

    def look(self) -> None:
        """Brings `contents` up to date; reads no file where none changed. For a thread: it waits for the disk."""
        # Stamps first: what changes while the apps are read has another stamp the next time.
        stamps = stamps_of(self.folder)
        if stamps != self._seen:
            # Where two folders have an app of one name, the first of them is told.
            self.contents = {app.task: app.content for app in reversed(installed_apps(self.folder))}
            self._seen = stamps
