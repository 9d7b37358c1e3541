"""Analyses as operators ask for them and see them. A row of a campaign holds one; its job does the asking."""

from sqlmodel import Session, col, select

from cloud.campaigns.errors import InvalidCampaignError, UnknownCampaignError
from cloud.campaigns.launch import Launch
from cloud.campaigns.models import CampaignRow
from cloud.campaigns.planning import check_sizes
from cloud.campaigns.privacy import spent_by_device
from cloud.campaigns.secure.exclusions import check_cohort
from cloud.campaigns.service import cancel_row, checked_devices, queue, tries_of, view_try
from cloud.jobs.service import get_job
from cloud.training.privacy_plan import plan_privacy
from shared.accountant import PrivacyPlanError
from shared.analytics.query import Query
from shared.api.analytics import Analysis, AnalysisCreate, Findings
from shared.api.campaigns import SecureAggregation
from shared.lifecycles import JobState
from shared.privacy import PrivacySpec
from shared.strategies import FedAvgSettings
from shared.tasks.registry import load_task
from shared.tasks.task import Task

JOB_KIND = "analysis"


def create_analysis(session: Session, asked: AnalysisCreate, launch: Launch) -> Analysis:
    """The analysis and its queued job, together.

    Raises:
        UnknownTaskError: The task is not installed here.
        UnknownDeviceError: One of the named devices is not enrolled.
        InvalidCampaignError: There is no such feature, the parts contradict each other, or no noise keeps the budget.
    """
    task = load_task(asked.task)
    _check_feature(task, asked.query)
    check_sizes(asked.selection, quorum=asked.quorum)
    if asked.secure:
        check_cohort(asked.secure, quorum=asked.quorum)
    plan = _planned(asked)
    row = CampaignRow(
        **launch.columns(),
        task=task.name,
        task_version=task.version,
        strategy=FedAvgSettings().name,
        rounds=1,
        quorum=asked.quorum,
        round_timeout_s=asked.timeout_s,
        seed=0,
        devices=checked_devices(session, asked.devices, quorum=asked.quorum),
        selection=asked.selection.model_dump(mode="json"),
        start_model_version_id="",
        privacy_budget=asked.privacy.model_dump() if asked.privacy else None,
        privacy=plan.model_dump() if plan else None,
        secure=asked.secure.model_dump() if asked.secure else None,
        query=asked.query.model_dump(mode="json"),
        quantiles=asked.quantiles,
    )
    queue(session, row, launch, kind=JOB_KIND)
    return _view(session, row, with_history=True)


def get_analysis(session: Session, analysis_id: str) -> Analysis:
    """The analysis with its tries. Raises UnknownCampaignError."""
    return _view(session, _row(session, analysis_id), with_history=True)


def list_analyses(session: Session, *, limit: int) -> list[Analysis]:
    """The newest, newest first, without their tries."""
    newest = select(CampaignRow).where(col(CampaignRow.query).is_not(None))
    newest = newest.order_by(col(CampaignRow.created_at).desc(), col(CampaignRow.campaign_id).desc())
    return [_view(session, row, with_history=False) for row in session.exec(newest.limit(limit))]


def cancel_analysis(session: Session, analysis_id: str, *, now: float) -> Analysis:
    """The analysis, cancelled: no device gets it any more. Raises UnknownCampaignError, or JobFinishedError."""
    row = _row(session, analysis_id)
    cancel_row(session, row, now=now)
    return _view(session, row, with_history=True)


def _check_feature(task: Task, query: Query) -> None:
    if query.feature not in task.schema.features:
        raise InvalidCampaignError(
            f"Expected a feature of {task.name} among {', '.join(task.schema.features)}, got {query.feature[:80]!r}"
        )


def _planned(asked: AnalysisCreate) -> PrivacySpec | None:
    """One use of the Gaussian mechanism on all of the data."""
    if asked.privacy is None:
        return None
    try:
        return plan_privacy(
            epsilon=asked.privacy.epsilon,
            delta=asked.privacy.delta,
            sampling_rate=1.0,
            steps_per_round=1,
            rounds=1,
            max_grad_norm=asked.query.sensitivity,
        )
    except PrivacyPlanError as error:
        raise InvalidCampaignError(error.message, hint=error.hint) from error


def _row(session: Session, analysis_id: str) -> CampaignRow:
    row = session.get(CampaignRow, analysis_id)
    if row is None or row.query is None:
        raise UnknownCampaignError(
            f"Expected an analysis, got the unknown id {analysis_id[:80]!r}",
            hint="`fleetlearn analytics list` shows them.",
        )
    return row


def _view(session: Session, row: CampaignRow, *, with_history: bool) -> Analysis:
    job = get_job(session, row.job_id)
    privacy = PrivacySpec.model_validate(row.privacy) if row.privacy else None
    tries = tries_of(session, row.campaign_id) if with_history else []
    return Analysis(
        analysis_id=row.campaign_id,
        task=row.task,
        state=JobState(job.state),
        error=job.error,
        query=Query.model_validate(row.query),
        unit=load_task(row.task).privacy_unit,
        privacy=privacy,
        privacy_spent=spent_by_device(privacy, tries),
        secure=SecureAggregation.model_validate(row.secure) if row.secure else None,
        findings=Findings.model_validate(row.findings) if row.findings else None,
        created_at=row.created_at,
        finished_at=job.finished_at,
        history=[view_try(attempt) for attempt in tries],
    )
