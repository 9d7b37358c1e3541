"""Work is looked for by campaign and round: a long campaign's older rounds are not read each time."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("work_item", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_work_item_campaign_id"))
        batch_op.create_index("ix_work_item_campaign_id_round", ["campaign_id", "round"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("work_item", schema=None) as batch_op:
        batch_op.drop_index("ix_work_item_campaign_id_round")
        batch_op.create_index(batch_op.f("ix_work_item_campaign_id"), ["campaign_id"], unique=False)
