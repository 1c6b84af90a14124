"""Places: the folders that outputs and quarantine notes go to, and the file system that a slide was seen on.

Revision 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "folders",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("marker", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("path", name="pk_folders"),
    )
    op.add_column("slides", sa.Column("place", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("slides", "place")
    op.drop_table("folders")
