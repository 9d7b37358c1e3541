"""Federated analytics."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("campaign", schema=None) as batch_op:
        batch_op.add_column(sa.Column("query", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("quantiles", sa.JSON(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("findings", sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("campaign", schema=None) as batch_op:
        batch_op.drop_column("findings")
        batch_op.drop_column("quantiles")
        batch_op.drop_column("query")
