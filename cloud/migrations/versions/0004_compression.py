"""Campaigns that ask for compressed updates."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("campaign", schema=None) as batch_op:
        # Campaigns from before got their updates in full.
        batch_op.add_column(sa.Column("compression", sa.String(), nullable=False, server_default=""))
    with op.batch_alter_table("campaign", schema=None) as batch_op:
        batch_op.alter_column("compression", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("campaign", schema=None) as batch_op:
        batch_op.drop_column("compression")
