"""Finds the devices of a round: looks at the fleet, waits while time is left, and says why it is not enough."""

from collections.abc import Callable

from cloud.campaigns.journal import Journal
from cloud.campaigns.models import CampaignRow
from cloud.campaigns.rounds import Round
from cloud.campaigns.selection import Selection, Wanted, enough_but_for_others, select, shortfall
from cloud.campaigns.selection_draw import draw
from cloud.campaigns.user_privacy import draw_seed
from shared.api.campaigns import Draw, SelectionRules

_LOOK_AGAIN_S = 1.0


class Cohort:
    """Who can take part in a campaign.

    Args:
        journal: The campaign's.
        campaign: With its privacy planned.
    """

    def __init__(self, journal: Journal, campaign: CampaignRow) -> None:
        self._journal = journal
        self._campaign = campaign
        self._rules = SelectionRules.model_validate(campaign.selection)

    @property
    def quorum(self) -> int:
        """Updates that a round must have: none where a random cohort hides who is in it, and nobody may be missed."""
        is_random = self._campaign.user_privacy is not None and self._rules.draw is Draw.POISSON
        return 0 if is_random else self._campaign.quorum

    @property
    def enough(self) -> int | None:
        """Updates that close a round before everybody has answered."""
        return self._rules.enough

    def wait(
        self, number: int, *, now: Callable[[], float], sleep: Callable[[float], None], told: Callable[[str], None]
    ) -> Selection:
        """Who may be asked: at once when there are enough, otherwise whoever is there after a round's time.

        While other campaigns have the devices it waits for its turn, however long that is.

        Args:
            number: Of the round.
            now: Seconds since the epoch.
            sleep: Waits some seconds.
            told: Called before each wait with why it waits; may raise to stop.
        """
        deadline = now() + self._campaign.round_timeout_s
        while True:
            selection = self.select(number)
            waits_its_turn = enough_but_for_others(selection, quorum=self._campaign.quorum)
            if self.is_enough(selection, number) or (now() >= deadline and not waits_its_turn):
                return selection
            self._journal.wait_in_line(waits_its_turn)
            told(self.why_not_enough(selection))
            sleep(min(_LOOK_AGAIN_S, self._campaign.round_timeout_s / 10))

    def draw(self, selection: Selection, opened: Round) -> Selection:
        """Whom of them to ask in this try; the same whenever the try is opened."""
        seed = f"{self._campaign.campaign_id} {self._campaign.seed} {opened.number} {opened.attempt}"
        if self._campaign.user_privacy:
            seed = draw_seed(self._journal.secret(), number=opened.number, attempt=opened.attempt)
        return draw(selection, self._rules, self._journal.past().histories, seed=seed, round=opened.number)

    def select(self, number: int) -> Selection:
        """Who could be asked now, and why each other device could not."""
        past, carried = self._journal.past(), self._journal.carried(number)
        wanted = Wanted(
            task=self._campaign.task,
            task_version=self._campaign.task_version,
            only=self._campaign.devices,
            refused=past.refused,
            takes=past.takes,
            busy=self._journal.busy(),
            rivals=self._journal.rivals(),
            takes_max=self._campaign.rounds if self._campaign.privacy else None,
            summed=self._campaign.compression if self._campaign.secure else "",
            rules=self._rules,
            histories=past.histories,
            round=number,
            still_training=carried,
        )
        return select(self._journal.fleet(heartbeat_s=self._campaign.heartbeat_s, only=self._campaign.devices), wanted)

    def population(self) -> int:
        """Devices that may ever take part, as far as is known now: enrolled, with the task, and wanted."""
        fleet = self._journal.fleet(heartbeat_s=self._campaign.heartbeat_s, only=self._campaign.devices)
        able = [device for device in fleet if device.tasks.get(self._campaign.task) == self._campaign.task_version]
        return max(len(able), self._campaign.quorum)

    def is_enough(self, selection: Selection, number: int) -> bool:
        return len(selection.chosen) + len(self._journal.carried(number)) >= self._campaign.quorum

    def why_not_enough(self, selection: Selection) -> str:
        return shortfall(selection, quorum=self._campaign.quorum)

    def has_used_up_its_privacy(self) -> bool:
        """Whether abandoned tries cost so much that a quorum within the privacy budget is not to be had any more."""
        if not self._campaign.privacy:
            return False
        number = 1 + max((row.round for row in self._journal.tries()), default=0)
        takes, selection = self._journal.past().takes, self.select(number)
        spent = [device for device in selection.excluded if takes.get(device, 0) >= self._campaign.rounds]
        others = len(selection.chosen) + len(selection.excluded) - len(spent)
        return bool(spent) and others < self._campaign.quorum
