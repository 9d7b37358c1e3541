"""Documents and events of fleets behind an MQTT broker."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mqtt_device",
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("desired", sa.JSON(), nullable=False),
        sa.Column("desired_version", sa.BigInteger(), nullable=False),
        sa.Column("reported", sa.JSON(), nullable=False),
        sa.Column("reported_version", sa.BigInteger(), nullable=False),
        sa.Column("session", sa.String(), nullable=False),
        sa.Column("is_told", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("device_id"),
    )
    with op.batch_alter_table("mqtt_device", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_mqtt_device_is_told"), ["is_told"], unique=False)
    op.create_table(
        "mqtt_event",
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("enqueued_at", sa.Float(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("offset"),
    )


def downgrade() -> None:
    op.drop_table("mqtt_event")
    with op.batch_alter_table("mqtt_device", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_mqtt_device_is_told"))
    op.drop_table("mqtt_device")
