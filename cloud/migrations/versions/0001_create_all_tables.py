"""Create all tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


_APPEND_ONLY = {
    "sqlite": (
        "CREATE TRIGGER audit_entry_no_update BEFORE UPDATE ON audit_entry "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
        "CREATE TRIGGER audit_entry_no_delete BEFORE DELETE ON audit_entry "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION audit_entry_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$",
        "CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_entry_is_append_only()",
    ),
}


def upgrade() -> None:
    op.create_table(
        "alert",
        sa.Column("alert_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("opened_at", sa.Float(), nullable=False),
        sa.Column("last_seen_at", sa.Float(), nullable=False),
        sa.Column("closed_at", sa.Float(), nullable=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("closed_by_principal", sa.String(), nullable=False),
        sa.Column("closed_by_role", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("alert_id"),
    )
    with op.batch_alter_table("alert", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_alert_closed_at"), ["closed_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_alert_opened_at"), ["opened_at"], unique=False)
        batch_op.create_index(
            "uq_alert_open",
            ["kind", "device_id", "subject"],
            unique=True,
            sqlite_where=sa.text("closed_at IS NULL"),
            postgresql_where=sa.text("closed_at IS NULL"),
        )

    op.create_table(
        "audit_entry",
        sa.Column("entry_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("principal", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("entry_id"),
    )
    with op.batch_alter_table("audit_entry", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_entry_at"), ["at"], unique=False)

    op.create_table(
        "campaign",
        sa.Column("campaign_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("task_version", sa.String(), nullable=False),
        sa.Column("strategy", sa.String(), nullable=False),
        sa.Column("rounds", sa.Integer(), nullable=False),
        sa.Column("quorum", sa.Integer(), nullable=False),
        sa.Column("round_timeout_s", sa.Float(), nullable=False),
        sa.Column("heartbeat_s", sa.Float(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("devices", sa.JSON(), nullable=False),
        sa.Column("start_model_version_id", sa.String(), nullable=False),
        sa.Column("result_model_version_id", sa.String(), nullable=True),
        sa.Column("privacy_budget", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("privacy", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by_principal", sa.String(), nullable=False),
        sa.Column("created_by_role", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("campaign_id"),
    )
    with op.batch_alter_table("campaign", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_campaign_created_at"), ["created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_campaign_job_id"), ["job_id"], unique=False)

    op.create_table(
        "device",
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("enrolled_at", sa.Float(), nullable=False),
        sa.Column("created_by_principal", sa.String(), nullable=False),
        sa.Column("created_by_role", sa.String(), nullable=False),
        sa.Column("public_key_pem", sa.String(), nullable=False),
        sa.Column("previous_public_key_pem", sa.String(), nullable=True),
        sa.Column("certificate_pem", sa.String(), nullable=False),
        sa.Column("certificate_expires_at", sa.Float(), nullable=False),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.Column("is_in_hub", sa.Boolean(), nullable=True),
        sa.Column("last_seen_at", sa.Float(), nullable=True),
        sa.Column("boot_id", sa.String(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("boots_seen", sa.JSON(), nullable=False),
        sa.Column("agent_version", sa.String(), nullable=False),
        sa.Column("protocol_version", sa.Integer(), nullable=False),
        sa.Column("tasks", sa.JSON(), nullable=False),
        sa.Column("runtime", sa.String(), nullable=False),
        sa.Column("opset_max", sa.Integer(), nullable=False),
        sa.Column("memory_rss_bytes", sa.BigInteger(), nullable=False),
        sa.Column("serving_url", sa.String(), nullable=False),
        sa.Column("privacy", sa.JSON(), nullable=False),
        sa.Column("agent_rejections", sa.BigInteger(), nullable=False),
        sa.Column("events_rejected", sa.BigInteger(), nullable=False),
        sa.Column("release_id", sa.String(), nullable=True),
        sa.Column("release_asked_id", sa.String(), nullable=True),
        sa.Column("release_state", sa.String(), nullable=True),
        sa.Column("release_error", sa.String(), nullable=False),
        sa.Column("release_generation", sa.BigInteger(), nullable=False),
        sa.Column("desired_release_id", sa.String(), nullable=True),
        sa.Column("desired_generation", sa.BigInteger(), nullable=False),
        sa.Column("drift", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("device_id"),
    )
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_device_enrolled_at"), ["enrolled_at"], unique=False)

    op.create_table(
        "device_release",
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("boot_id", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("release_id", sa.String(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("active_release_id", sa.String(), nullable=True),
        sa.Column("state_since", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("device_id"),
    )
    with op.batch_alter_table("device_release", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_device_release_release_id"), ["release_id"], unique=False)

    op.create_table(
        "drift_reference",
        sa.Column("release_id", sa.String(), nullable=False),
        sa.Column("thresholds", sa.JSON(), nullable=False),
        sa.Column("examples_min", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("release_id"),
    )
    op.create_table(
        "enrolment_token",
        sa.Column("token_id", sa.String(), nullable=False),
        sa.Column("secret_hash", sa.String(), nullable=False),
        sa.Column("device_id", sa.String(), nullable=True),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("created_by_principal", sa.String(), nullable=False),
        sa.Column("created_by_role", sa.String(), nullable=False),
        sa.Column("used_at", sa.Float(), nullable=True),
        sa.Column("used_by_device_id", sa.String(), nullable=True),
        sa.Column("used_by_key", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("token_id"),
    )
    with op.batch_alter_table("enrolment_token", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_enrolment_token_secret_hash"), ["secret_hash"], unique=True)

    op.create_table(
        "event_offset",
        sa.Column("consumer", sa.String(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("consumer"),
    )
    op.create_table(
        "job",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("hint", sa.String(), nullable=False),
        sa.Column("restarts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by_principal", sa.String(), nullable=False),
        sa.Column("created_by_role", sa.String(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("job_id"),
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_job_created_at"), ["created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_job_kind"), ["kind"], unique=False)
        batch_op.create_index(batch_op.f("ix_job_state"), ["state"], unique=False)

    op.create_table(
        "model_version",
        sa.Column("model_version_id", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("task_version", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("weights", sa.JSON(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("lineage", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by_principal", sa.String(), nullable=False),
        sa.Column("created_by_role", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("model_version_id"),
        sa.UniqueConstraint("origin"),
    )
    with op.batch_alter_table("model_version", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_model_version_created_at"), ["created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_model_version_task"), ["task"], unique=False)

    op.create_table(
        "operator_token",
        sa.Column("token_hash", sa.String(), nullable=False),
        sa.Column("principal", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("token_hash"),
    )
    op.create_table(
        "rejected_event",
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("offset"),
    )
    with op.batch_alter_table("rejected_event", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_rejected_event_device_id"), ["device_id"], unique=False)

    op.create_table(
        "release",
        sa.Column("release_id", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("model_version_id", sa.String(), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.Column("manifest_object", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("published_at", sa.Float(), nullable=True),
        sa.Column("created_by_principal", sa.String(), nullable=False),
        sa.Column("created_by_role", sa.String(), nullable=False),
        sa.Column("published_by_principal", sa.String(), nullable=False),
        sa.Column("published_by_role", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("release_id"),
        sa.UniqueConstraint("origin"),
    )
    with op.batch_alter_table("release", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_release_created_at"), ["created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_release_model_version_id"), ["model_version_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_release_task"), ["task"], unique=False)

    op.create_table(
        "release_status",
        sa.Column("status_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("boot_id", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.Column("release_id", sa.String(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("active_release_id", sa.String(), nullable=True),
        sa.Column("self_test_ms", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("status_id"),
        sa.UniqueConstraint("device_id", "event_id"),
    )
    with op.batch_alter_table("release_status", schema=None) as batch_op:
        batch_op.create_index("ix_release_status_device", ["device_id", "status_id"], unique=False)

    op.create_table(
        "rollout",
        sa.Column("rollout_id", sa.String(), nullable=False),
        sa.Column("release_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("left_out", sa.JSON(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.Column("created_by_principal", sa.String(), nullable=False),
        sa.Column("created_by_role", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id"),
    )
    with op.batch_alter_table("rollout", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_rollout_created_at"), ["created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_rollout_release_id"), ["release_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_rollout_state"), ["state"], unique=False)

    op.create_table(
        "rollout_generation",
        sa.Column("generation", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("rollout_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("generation"),
    )
    op.create_table(
        "seen_event",
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("device_id", "event_id"),
    )
    with op.batch_alter_table("seen_event", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_seen_event_seen_at"), ["seen_at"], unique=False)

    op.create_table(
        "serving_window",
        sa.Column("window_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("boot_id", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("is_straggler", sa.Boolean(), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.Column("release_id", sa.String(), nullable=False),
        sa.Column("window_s", sa.Float(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("examples", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("latency_p50_ms", sa.Float(), nullable=True),
        sa.Column("latency_p99_ms", sa.Float(), nullable=True),
        sa.Column("drift", sa.JSON(), nullable=False),
        sa.Column("drift_examples", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("window_id"),
        sa.UniqueConstraint("device_id", "event_id"),
    )
    with op.batch_alter_table("serving_window", schema=None) as batch_op:
        batch_op.create_index("ix_serving_window_device", ["device_id", "window_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_serving_window_received_at"), ["received_at"], unique=False)
        batch_op.create_index("ix_serving_window_release", ["release_id", "received_at"], unique=False)

    op.create_table(
        "work_item",
        sa.Column("work_id", sa.String(), nullable=False),
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("campaign_id", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("model_digest", sa.String(), nullable=False),
        sa.Column("instruction", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("fetched_at", sa.Float(), nullable=True),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("work_id"),
    )
    with op.batch_alter_table("work_item", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_work_item_campaign_id"), ["campaign_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_work_item_device_id"), ["device_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_work_item_model_digest"), ["model_digest"], unique=False)
        batch_op.create_index(batch_op.f("ix_work_item_state"), ["state"], unique=False)

    op.create_table(
        "campaign_checkpoint",
        sa.Column("campaign_id", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("model", sa.JSON(), nullable=False),
        sa.Column("memory", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("accuracy", sa.Float(), nullable=False),
        sa.Column("loss", sa.Float(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"],
            ["campaign.campaign_id"],
        ),
        sa.PrimaryKeyConstraint("campaign_id", "round"),
    )
    op.create_table(
        "campaign_round",
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("campaign_id", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("quorum", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("deadline_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.Column("accuracy", sa.Float(), nullable=True),
        sa.Column("loss", sa.Float(), nullable=True),
        sa.Column("bytes_down", sa.BigInteger(), nullable=False),
        sa.Column("bytes_up", sa.BigInteger(), nullable=False),
        sa.Column("outcomes", sa.JSON(), nullable=False),
        sa.Column("work_ids", sa.JSON(), nullable=False),
        sa.Column("fetched", sa.JSON(), nullable=False),
        sa.Column("model_bytes", sa.BigInteger(), nullable=False),
        sa.Column("excluded", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"],
            ["campaign.campaign_id"],
        ),
        sa.PrimaryKeyConstraint("round_id"),
        sa.UniqueConstraint("campaign_id", "round", "attempt"),
    )
    with op.batch_alter_table("campaign_round", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_campaign_round_campaign_id"), ["campaign_id"], unique=False)

    op.create_table(
        "rollout_device",
        sa.Column("rollout_id", sa.String(), nullable=False),
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("asked_at", sa.Float(), nullable=True),
        sa.Column("is_delivered", sa.Boolean(), nullable=False),
        sa.Column("judged_from", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.rollout_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("rollout_id", "device_id"),
    )
    with op.batch_alter_table("rollout_device", schema=None) as batch_op:
        batch_op.create_index("ix_rollout_device_device", ["device_id"], unique=False)

    op.create_table(
        "rollout_wave",
        sa.Column("rollout_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("clock_from", sa.Float(), nullable=True),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.rollout_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("rollout_id", "number"),
    )
    for statement in _APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("rollout_wave")
    with op.batch_alter_table("rollout_device", schema=None) as batch_op:
        batch_op.drop_index("ix_rollout_device_device")

    op.drop_table("rollout_device")
    with op.batch_alter_table("campaign_round", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_campaign_round_campaign_id"))

    op.drop_table("campaign_round")
    op.drop_table("campaign_checkpoint")
    with op.batch_alter_table("work_item", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_work_item_state"))
        batch_op.drop_index(batch_op.f("ix_work_item_model_digest"))
        batch_op.drop_index(batch_op.f("ix_work_item_device_id"))
        batch_op.drop_index(batch_op.f("ix_work_item_campaign_id"))

    op.drop_table("work_item")
    with op.batch_alter_table("serving_window", schema=None) as batch_op:
        batch_op.drop_index("ix_serving_window_release")
        batch_op.drop_index(batch_op.f("ix_serving_window_received_at"))
        batch_op.drop_index("ix_serving_window_device")

    op.drop_table("serving_window")
    with op.batch_alter_table("seen_event", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_seen_event_seen_at"))

    op.drop_table("seen_event")
    op.drop_table("rollout_generation")
    with op.batch_alter_table("rollout", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_rollout_state"))
        batch_op.drop_index(batch_op.f("ix_rollout_release_id"))
        batch_op.drop_index(batch_op.f("ix_rollout_created_at"))

    op.drop_table("rollout")
    with op.batch_alter_table("release_status", schema=None) as batch_op:
        batch_op.drop_index("ix_release_status_device")

    op.drop_table("release_status")
    with op.batch_alter_table("release", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_release_task"))
        batch_op.drop_index(batch_op.f("ix_release_model_version_id"))
        batch_op.drop_index(batch_op.f("ix_release_created_at"))

    op.drop_table("release")
    with op.batch_alter_table("rejected_event", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_rejected_event_device_id"))

    op.drop_table("rejected_event")
    op.drop_table("operator_token")
    with op.batch_alter_table("model_version", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_model_version_task"))
        batch_op.drop_index(batch_op.f("ix_model_version_created_at"))

    op.drop_table("model_version")
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_job_state"))
        batch_op.drop_index(batch_op.f("ix_job_kind"))
        batch_op.drop_index(batch_op.f("ix_job_created_at"))

    op.drop_table("job")
    op.drop_table("event_offset")
    with op.batch_alter_table("enrolment_token", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_enrolment_token_secret_hash"))

    op.drop_table("enrolment_token")
    op.drop_table("drift_reference")
    with op.batch_alter_table("device_release", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_device_release_release_id"))

    op.drop_table("device_release")
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_device_enrolled_at"))

    op.drop_table("device")
    with op.batch_alter_table("campaign", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_campaign_job_id"))
        batch_op.drop_index(batch_op.f("ix_campaign_created_at"))

    op.drop_table("campaign")
    with op.batch_alter_table("audit_entry", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_audit_entry_at"))

    op.drop_table("audit_entry")
    with op.batch_alter_table("alert", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_alert_open", sqlite_where=sa.text("closed_at IS NULL"), postgresql_where=sa.text("closed_at IS NULL")
        )
        batch_op.drop_index(batch_op.f("ix_alert_opened_at"))
        batch_op.drop_index(batch_op.f("ix_alert_closed_at"))

    op.drop_table("alert")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_entry_is_append_only()")
