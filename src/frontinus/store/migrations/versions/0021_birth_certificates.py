"""The certificate that an amphora was born with: a machine that restarts by itself shows it again.

Revision ID: 0021
Revises: 0020"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0021"
down_revision: str | None = "0020"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    # Not as a batch: SQLite would make the table anew, and children hang on the old one.
    op.add_column("amphora", sa.Column("birth_fingerprint", sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_column("amphora", "birth_fingerprint")
