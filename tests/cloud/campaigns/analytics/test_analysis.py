"""An analysis through the round machine: quorum, refusals, kills, secure sums; the pooled data's figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud.campaigns.analytics.job import run_analysis
from cloud.campaigns.analytics.service import create_analysis, get_analysis, list_analyses
from cloud.campaigns.errors import CampaignFailedError, InvalidCampaignError, UnknownCampaignError
from cloud.campaigns.service import get_campaign, list_campaigns
from cloud.jobs.models import JobRecord
from edge_agent.training.analytics import answer_of
from shared.analytics.noise import noise_on_each
from shared.api.analytics import Analysis, AnalysisCreate, Findings
from shared.ids import DeviceId
from shared.lifecycles import JobState
from shared.messages.events import WorkResult
from shared.messages.work import Work, WorkKind
from shared.randomness import SecureRandomness
from shared.tasks.registry import load_task
from shared.tensors import Tensors
from tests.cloud.campaigns.secure_fleet import SecureDevices
from tests.cloud.campaigns.world import KilledError, World, done, fails, refuses, stays_silent

TASK = load_task("digits")
SLICES = list(TASK.device_slices().values())
NAMES = ("a", "b", "c", "d", "e")
QUERY: dict[str, Any] = {"feature": "ink", "low": 0.0, "high": 0.6, "bins": 24}


def _sums(device_id: DeviceId, work: Work) -> Tensors:
    """What the agent answers, with noise that is the same each time it is asked."""
    assert work.kind is WorkKind.ANALYZE
    assert work.query is not None
    key = work.work_id.encode().ljust(32)[:32]
    noise = noise_on_each(work.query, work.privacy, work.secure)
    examples = SLICES[NAMES.index(device_id)].train
    return answer_of(work.query, TASK, examples, noise=noise, randomness=SecureRandomness(key))


def answers(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
    return done(world, work, _sums(device_id, work), {"num-examples": 1.0})


def ask(world: World, **fields: Any) -> str:
    asked = AnalysisCreate.model_validate(
        {"task": "digits", "query": QUERY, "timeout_s": 5, "quantiles": [0.5], **fields}
    )
    with world.sessions() as session, session.begin():
        create_analysis(session, asked, world.launch("analysis-1"))
        job = session.get_one(JobRecord, "job-1")
        job.state = JobState.RUNNING
        session.add(job)
    return "analysis-1"


def run(world: World) -> Analysis:
    run_analysis(world.context(), "analysis-1", sleep=world.sleep)
    return analysis(world)


def analysis(world: World) -> Analysis:
    with world.sessions() as session, session.begin():
        return get_analysis(session, "analysis-1")


def pooled(names: tuple[str, ...] = NAMES) -> np.ndarray:
    """The feature of all these devices' data, in the range that is asked for."""
    column = TASK.schema.features.index("ink")
    inputs = [SLICES[NAMES.index(name)].train.inputs for name in names]
    return np.concatenate([TASK.features(each)[:, column] for each in inputs]).clip(QUERY["low"], QUERY["high"])


def test_without_noise_the_answer_is_numpys_on_the_pooled_data(world: World) -> None:
    for name in NAMES:
        world.add(name, answers)
    ask(world)
    found = run(world).findings
    assert found is not None
    assert found.mean is not None
    assert found.variance is not None
    values = pooled()
    assert found.devices == 5
    assert found.count.value == pytest.approx(len(values))
    assert found.mean.value == pytest.approx(values.mean(), abs=1e-6)
    assert found.variance.value == pytest.approx(values.var(), abs=1e-6)
    assert found.quantiles[0].value == pytest.approx(np.median(values), abs=0.6 / 24)
    # float32 features may fall on the other side of an edge.
    counts = [each.count for each in found.histogram]
    np.testing.assert_allclose(counts, np.histogram(values, 24, (0, 0.6))[0], atol=1.5)


def test_with_privacy_the_plan_the_cost_and_the_errors_are_told(world: World) -> None:
    for name in NAMES:
        world.add(name, answers)
    ask(world, privacy={"epsilon": 5.0})
    found = run(world)
    assert found.findings is not None
    assert found.findings.mean is not None
    assert found.privacy is not None
    assert found.privacy.max_grad_norm == found.query.sensitivity
    assert [(each.device_id, each.rounds) for each in found.privacy_spent] == [(name, 1) for name in NAMES]
    assert all(4.9 < each.epsilon <= 5.0 for each in found.privacy_spent)
    error = found.findings.mean.error
    assert 0 < error < 0.02
    assert abs(found.findings.mean.value - pooled().mean()) < 4 * error


def test_who_refuses_or_fails_is_left_out_and_the_rest_is_a_quorum(world: World) -> None:
    for name, behaviour in zip(NAMES, (answers, answers, answers, refuses, fails), strict=True):
        world.add(name, behaviour)
    ask(world)
    found = run(world)
    assert found.findings is not None
    assert found.findings.mean is not None
    assert found.findings.mean.value == pytest.approx(pooled(("a", "b", "c")).mean(), abs=1e-6)
    statuses = {each.device_id: each.status for each in found.history[0].devices}
    assert statuses == {"a": "done", "b": "done", "c": "done", "d": "refused", "e": "failed"}


def test_below_the_quorum_there_is_no_answer_and_nobody_pays_twice(world: World) -> None:
    for name, behaviour in zip(NAMES, (answers, answers, refuses, refuses, stays_silent), strict=True):
        world.add(name, behaviour)
    ask(world, privacy={"epsilon": 5.0})
    with pytest.raises(CampaignFailedError, match=r"2 done, 2 refused.*; c: Privacy budget spent"):
        run(world)
    found = analysis(world)
    assert found.findings is None
    assert len(found.history) == 1
    assert all(each.rounds == 1 for each in found.privacy_spent)


@pytest.mark.parametrize("tensors", [{"sums": np.full(3, 1.0, np.float32)}, {"model": np.zeros(2, np.float32)}])
def test_an_answer_of_another_shape_is_the_devices_failure(world: World, tensors: Tensors) -> None:
    for name in NAMES[:3]:
        world.add(name, answers)
    world.add("d", lambda world, _, work: done(world, work, tensors))
    ask(world)
    found = run(world)
    assert found.findings is not None
    assert found.findings.devices == 3
    (outcome,) = [each for each in found.history[0].devices if each.device_id == "d"]
    assert (outcome.status, "rejected" in outcome.reason) == ("failed", True)


def test_a_kill_after_any_write_ends_with_the_same_answer(tmp_path: Path) -> None:
    def of(folder: Path, **fields: Any) -> World:
        folder.mkdir()
        made = World(folder, **fields)
        for name in NAMES[:3]:
            made.add(name, answers)
        ask(made, privacy={"epsilon": 5.0})
        return made

    undisturbed = of(tmp_path / "undisturbed")
    expected = run(undisturbed).findings
    for write in range(1, undisturbed.writes + 1):
        world = of(tmp_path / f"kill-{write}", kill_after_writes=write)
        with pytest.raises(KilledError):
            run(world)
        world.let_devices_work()
        assert run(world).findings == expected
        world.engine.dispose()


def test_a_secure_sum_has_the_same_answer_and_the_noise_of_one(tmp_path: Path) -> None:
    def found(folder: str, *, secure: dict[str, Any] | None, **fields: Any) -> Findings:
        (tmp_path / folder).mkdir()
        world = World(tmp_path / folder)
        devices = SecureDevices(tmp_path / folder / "devices", train=lambda _, device_id, work: _sums(device_id, work))
        for name in NAMES:
            world.add(name, devices.behaviour() if secure else answers)
        ask(world, secure=secure, quorum=5, **fields)
        findings = run(world).findings
        assert findings is not None
        return findings

    secure = {"clients_min": 5, "corrupt_share": 0.1, "dropout_share": 0.0, "value_max": 2.0**16}
    exact = found("exact", secure=secure)
    noised = found("noised", secure=secure, privacy={"epsilon": 5.0})
    local = found("local", secure=None, privacy={"epsilon": 5.0})
    assert exact.mean is not None
    assert noised.mean is not None
    assert exact.mean.value == pytest.approx(pooled().mean(), abs=1e-3)
    assert abs(noised.mean.value - pooled().mean()) < 4 * noised.mean.error
    # Five devices' shares make the noise of one, where each alone adds all of it.
    assert local.count.error == pytest.approx(5**0.5 * noised.count.error)


def test_campaigns_and_analyses_are_not_taken_for_each_other(world: World) -> None:
    ask(world)
    with world.sessions() as session, session.begin():
        assert [each.analysis_id for each in list_analyses(session, limit=5)] == ["analysis-1"]
        assert list_campaigns(session, limit=5) == []
        with pytest.raises(UnknownCampaignError, match="Expected a campaign"):
            get_campaign(session, "analysis-1")
    world.ask(number=2)
    with world.sessions() as session, session.begin():
        assert [each.campaign_id for each in list_campaigns(session, limit=5)] == ["campaign-2"]
        with pytest.raises(UnknownCampaignError, match="Expected an analysis"):
            get_analysis(session, "campaign-2")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"query": {**QUERY, "feature": "age"}}, "among ink, top, bottom, left, right, got 'age'"),
        ({"privacy": {"epsilon": 1e-9}}, "a budget that noise can keep"),
        ({"selection": {"cohort": 2}}, "at least the quorum, 3, got 2"),
        ({"secure": {"clients_min": 4}}, "quorum of at least 4"),
    ],
)
def test_what_cannot_work_is_refused_before_anybody_is_asked(world: World, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidCampaignError, match=reason):
        ask(world, **fields)
