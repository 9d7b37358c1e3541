"""Flower apps as campaigns."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("campaign", schema=None) as batch_op:
        batch_op.add_column(sa.Column("flower", sa.JSON(), nullable=True))
    op.create_table(
        "flower_event",
        sa.Column("campaign_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.campaign_id"]),
        sa.PrimaryKeyConstraint("campaign_id", "number"),
    )


def downgrade() -> None:
    op.drop_table("flower_event")
    with op.batch_alter_table("campaign", schema=None) as batch_op:
        batch_op.drop_column("flower")
