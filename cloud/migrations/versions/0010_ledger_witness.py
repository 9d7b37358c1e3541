"""What devices told of their privacy ledgers."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.add_column(sa.Column("ledger", sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column("ledger_problem", sa.String(), nullable=False, server_default=""))
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.alter_column("ledger_problem", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.drop_column("ledger_problem")
        batch_op.drop_column("ledger")
