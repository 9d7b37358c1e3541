"""Views are values: what an operator reads in each state of the fleet."""

from hypothesis import given
from hypothesis import strategies as st

from fleet.fleet_state import FleetState, campaign_to_watch, rollout_to_watch
from fleet.views import alerts, campaigns, devices, overview, privacy, registry, rollouts, serving
from fleet.views.table import Cell, Row, Table, Tone, compact, filtered, ordered
from shared.api.campaigns import UserPrivacySpent
from shared.api.privacy import ExpectedRefusal
from shared.lifecycles import JobState, RolloutEvent, RolloutState
from shared.messages.events import LiveState
from shared.privacy import Adjacency, UserPrivacySpec
from tests.fleet import scenario

NOW = scenario.NOW
CELLS = st.builds(Cell, st.text(max_size=6), st.just(Tone.PLAIN), st.none() | st.floats(allow_nan=False))
TABLES = st.lists(st.tuples(CELLS, CELLS), max_size=8).map(
    lambda rows: Table.of(("a", "b"), (Row(str(number), cells) for number, cells in enumerate(rows)))
)


@given(TABLES, st.integers(-1, 3) | st.none())
def test_ordering_keeps_every_row_and_does_nothing_twice(table: Table, column: int | None) -> None:
    once = ordered(table, column)
    assert sorted(row.key for row in once.rows) == sorted(row.key for row in table.rows)
    assert ordered(once, column) == once


@given(TABLES, st.text(max_size=4))
def test_filtering_keeps_a_part_in_its_order(table: Table, words: str) -> None:
    kept = [row.key for row in filtered(table, words).rows]
    assert kept == [row.key for row in table.rows if row.key in kept]
    assert filtered(table, "") == table


@given(TABLES)
def test_compacting_loses_no_text(table: Table) -> None:
    def said(table: Table) -> set[str]:
        return {cell.text.strip(" –") for row in table.rows for cell in row.cells} - {""}

    assert said(compact(table)) == said(table)


def row(name: str) -> dict[str, Cell]:
    found = next(d for d in scenario.devices() if d.device_id == name)
    return dict(zip(devices.COLUMNS, devices.device_row(found, now=NOW).cells, strict=True))


def test_a_healthy_device_is_all_green() -> None:
    assert row("wrist-01")["state"] == Cell("● online", Tone.GOOD, order=2)
    assert row("wrist-01")["release"] == Cell("…e7d30f51", Tone.GOOD)
    assert row("wrist-01")["note"].text == ""


def test_a_drifting_device_names_its_worst_feature() -> None:
    assert row("wrist-05")["drift"].text == "▲ gyro_x 0.61"
    assert row("wrist-05")["drift"].tone is Tone.BAD


def test_a_failed_release_shows_the_devices_own_words() -> None:
    assert row("wrist-08")["note"] == Cell("Expected opset 23 or older, got 24", Tone.BAD)


def test_a_device_on_its_way_shows_the_step() -> None:
    assert row("wrist-06")["release"] == Cell("…a41b9c02 ↻ downloading", Tone.BUSY)


def test_a_nearly_spent_ledger_is_red() -> None:
    assert row("wrist-10")["privacy left"].tone is Tone.BAD
    assert row("wrist-10")["privacy left"].text.endswith("ε 0.4")


def test_silent_new_and_revoked_devices_differ() -> None:
    states = [row(name)["state"].text for name in ("wrist-09", "wrist-11", "wrist-12")]
    assert states == ["○ silent", "○ new", "✕ revoked"]


def test_the_summary_counts_revoked_devices_only_as_that() -> None:
    summary = devices.summary(scenario.devices())
    assert (summary.total, summary.online, summary.revoked, summary.drifting) == (11, 9, 1, 1)


def test_accuracy_starts_with_the_starting_model() -> None:
    points = campaigns.accuracy_points(scenario.campaign())
    assert points[0] == (0.0, 0.541)
    assert points[-1] == (5.0, 0.703)
    assert campaigns.latest_accuracy(scenario.campaign(rounds_done=0)) is None


def test_the_gain_over_the_start_is_said() -> None:
    assert "70.3 % (+16.2)" in [cell.text for cell in campaigns.headline(scenario.campaign(), now=NOW)]


def test_a_rounds_problems_come_first_and_who_was_not_asked_last() -> None:
    table = campaigns.outcome_table(campaigns.current_round(scenario.campaign()))
    assert [row.key for row in table.rows[:2]] == ["wrist-07", "wrist-10"]
    assert [row.key for row in table.rows[-2:]] == ["wrist-09", "wrist-11"]


def test_a_second_try_at_a_round_is_a_row_of_its_own() -> None:
    campaign = scenario.campaign(rounds_done=1)
    again = campaign.history[-1].model_copy(update={"attempt": 2})
    tried = campaign.model_copy(update={"history": [*campaign.history, again]})
    assert [row.cells[0].text for row in campaigns.round_table(tried, now=NOW).rows] == ["2 try 2", "2", "1"]
    assert campaigns.current_round(tried) == again


def test_a_rollout_shows_failures_first_and_left_out_devices_last() -> None:
    rows = rollouts.device_table(scenario.rollout()).rows
    assert rows[0].key == "wrist-08"
    assert rows[-1].cells[2].text == "left out"


def test_a_plan_says_who_moves_when_and_who_is_left_out() -> None:
    text = " | ".join(cell.text for cell in rollouts.plan_lines(scenario.planned_rollout()))
    assert "wave 1 canary: 2 devices: wrist-01, wrist-02" in text
    assert "wave 2: 8 devices" in text
    assert "left out: 1 device: wrist-11: has no task physio" in text


def test_only_what_the_lifecycle_allows_is_offered() -> None:
    offered = [event for event in RolloutEvent if rollouts.allows(scenario.planned_rollout(), event)]
    assert offered == [RolloutEvent.START, RolloutEvent.STOP]


def test_alerts_show_open_ones_first_and_count_them() -> None:
    table = alerts.alert_table(scenario.alerts(), now=NOW)
    assert table.rows[0].key == scenario.ALERT
    assert table.rows[-1].cells[1].text == "✓ closed"
    assert alerts.open_counts(scenario.alerts()) == (1, 3)


def test_what_a_device_served_is_told_by_release() -> None:
    windows = list(reversed(scenario.serving_windows("wrist-01")))
    history = serving.release_history(windows, now=NOW)
    assert [row.cells[0].text for row in history.rows] == ["…e7d30f51", "…a41b9c02"]
    p50, p99 = serving.latency_points(windows, now=NOW)
    assert len(p50) == len(p99) == 40
    assert p50[0][0] < p50[-1][0] < 0


def test_a_release_shows_what_quantization_cost_and_won() -> None:
    row = registry.release_table(scenario.releases(), now=NOW).rows[0]
    assert [cell.text for cell in row.cells[2:7]] == ["○ draft", "71.5 %", "71.9 %", "21.3 kB", "2.5×"]


def test_an_empty_fleet_has_tiles_too() -> None:
    texts = [cells[0].text for _, cells in overview.tiles(FleetState())]
    assert texts == ["none yet", "none yet", "none yet", "all quiet"]


def test_what_runs_is_watched_before_what_is_newer_and_over() -> None:
    running = scenario.campaign()
    newer = scenario.campaign(state=JobState.DONE).model_copy(update={"created_at": NOW, "campaign_id": "x"})
    assert campaign_to_watch([newer, running]) == running
    done = scenario.rollout(state=RolloutState.DONE).model_copy(update={"created_at": NOW})
    assert rollout_to_watch([done, scenario.rollout()]) == scenario.rollout()
    assert rollout_to_watch([]) is None


def test_a_devices_live_state_is_told_as_far_as_it_is_known() -> None:
    assert devices.live_facts(LiveState()) == []
    live = LiveState(
        battery=0.1, is_charging=False, network="wifi", temperature_c=85, memory_free_bytes=10**9, data_age_s=90
    )
    told = {name: (cell.text, cell.tone) for name, cell in devices.live_facts(live)}
    assert told == {
        "battery": ("10%", Tone.WARN),
        "network": ("wifi", Tone.PLAIN),
        "temperature": ("85 °C", Tone.WARN),
        "memory free": ("1.0 GB", Tone.PLAIN),
        "data changed": ("1 min 30 s before", Tone.PLAIN),
    }
    assert dict(devices.live_facts(LiveState(battery=0.1, is_charging=True)))["battery"].text == "10%, on power"


def test_an_update_that_a_robust_strategy_left_out_is_marked_with_its_score() -> None:
    found = scenario.campaign()
    newest = campaigns.current_round(found)
    assert newest is not None
    strange = newest.devices[0].model_copy(update={"anomaly_score": 26.861, "is_used": False})
    usual = newest.devices[1].model_copy(update={"anomaly_score": 1.5, "is_used": True})
    table = campaigns.outcome_table(newest.model_copy(update={"devices": [strange, usual], "excluded": {}}))
    column = campaigns.OUTCOME_COLUMNS.index("anomaly")
    cells = {row.key: row.cells[column] for row in table.rows}
    assert (cells[strange.device_id].text, cells[strange.device_id].tone) == ("26.861 not used", Tone.WARN)
    assert (cells[usual.device_id].text, cells[usual.device_id].tone) == ("1.500", Tone.PLAIN)


def test_a_strategy_is_shown_with_its_settings_as_they_are_given() -> None:
    settings = {"server": {"name": "sgd", "momentum": 0.9}, "liars": 1, "selected": None}
    found = scenario.campaign().model_copy(update={"strategy": "multi_krum", "strategy_settings": settings})
    assert campaigns.strategy_fact(found) == "multi_krum (server.name=sgd, server.momentum=0.9, liars=1)"


def test_a_plan_says_which_devices_would_refuse_and_when_the_soonest_first() -> None:
    refusals = [
        ExpectedRefusal(
            device_id=f"wrist-{number:02d}",
            dataset_id="d",
            rounds=8 - number,
            epsilon=8.25,
            epsilon_limit=8,
            delta=1e-5,
        )
        for number in range(1, 8)
    ]
    planned = scenario.campaign(rounds_done=0).model_copy(update={"would_refuse": refusals})

    said = dict(campaigns.plan_facts(planned))["would refuse"].text

    assert said.startswith("wrist-07 after 1 round(s): ε 8.25 of 8; wrist-06 after 2 round(s)")
    assert said.endswith("; and 2 more")
    assert "would refuse" not in dict(campaigns.facts(scenario.campaign(), now=NOW))


def test_an_account_that_only_the_record_knows_says_so_and_one_with_a_problem_says_which() -> None:
    account = scenario.accounts()[0]
    mute = account.model_copy(
        update={"dataset_id": "", "epsilon_ledger": None, "epsilon_limit": None, "epsilon_left": None}
    )
    broken = account.model_copy(update={"ledger_problem": "It went back"})
    rows = [row.cells for row in privacy.account_table([account, mute, broken]).rows]
    assert [cells[-1].text for cells in rows] == [
        "",
        "its ledger said nothing yet: this is what it was asked for",
        "It went back",
    ]
    assert [cells[1].text for cells in rows] == [
        "recording of physi…rdings",
        "data it did not name",
        "recording of physi…rdings",
    ]
    assert rows[0][3].text == "ε 5.00 of 8"
    assert rows[1][3].text == "ε 5.00"
    assert "(5x), " in rows[0][6].text
    spent_on = privacy.spending_table([account]).rows
    assert [row.cells[2].text for row in spent_on] == ["4.50 at δ 1e-05", "1.75 at δ 1e-05"]


def test_a_campaign_that_hides_devices_says_what_is_planned_and_spent_and_whether_sampling_amplifies() -> None:
    spec = UserPrivacySpec(
        epsilon=4, delta=1e-5, noise_multiplier=1.1, clip_norm=0.5, sampling_rate=0.1, expected_clients=10, rounds=8
    )
    spent = UserPrivacySpent(rounds=3, epsilon=1.5, delta=1e-5)
    found = scenario.campaign().model_copy(update={"privacy": None, "user_privacy": spec, "user_privacy_spent": spent})

    said = {name: cell.text for name, cell in campaigns.facts(found, now=NOW)}

    assert said["each device"].startswith(
        "ε 4 at δ 1e-05 for each device in all; noise 1.1 by the coordinator, clip 0.5"
    )
    assert said["spent for each"] == "ε 1.5 of 4 in 3 round(s)"
    assert campaigns.privacy_badge(found).text == "ε 1.5 of 4 a device"
    certain = found.model_copy(update={"user_privacy": spec.model_copy(update={"adjacency": Adjacency.ZERO_OUT_ONE})})
    assert "not amplified by sampling" in dict(campaigns.facts(certain, now=NOW))["each device"].text
