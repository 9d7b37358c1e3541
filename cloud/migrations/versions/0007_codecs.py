"""Codecs that devices have."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Who was there before has not said anything.
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.add_column(sa.Column("codecs", sa.JSON(), nullable=False, server_default="[]"))
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.alter_column("codecs", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.drop_column("codecs")
