"""Strategies with settings."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("campaign", schema=None) as batch_op:
        # Campaigns from before had their strategy's defaults.
        batch_op.add_column(sa.Column("strategy_settings", sa.JSON(), nullable=False, server_default="{}"))
        batch_op.add_column(sa.Column("population", sa.Integer(), nullable=True))
    with op.batch_alter_table("campaign", schema=None) as batch_op:
        batch_op.alter_column("strategy_settings", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("campaign", schema=None) as batch_op:
        batch_op.drop_column("population")
        batch_op.drop_column("strategy_settings")
