"""User-level privacy, and the secrets that its noise follows from."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_COLUMNS = ("user_privacy_asked", "user_privacy")


def upgrade() -> None:
    with op.batch_alter_table("campaign", schema=None) as batch_op:
        for column in _COLUMNS:
            batch_op.add_column(sa.Column(column, sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "campaign_secret",
        sa.Column("campaign_id", sa.String(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.campaign_id"]),
        sa.PrimaryKeyConstraint("campaign_id"),
    )


def downgrade() -> None:
    op.drop_table("campaign_secret")
    with op.batch_alter_table("campaign", schema=None) as batch_op:
        for column in reversed(_COLUMNS):
            batch_op.drop_column(column)
