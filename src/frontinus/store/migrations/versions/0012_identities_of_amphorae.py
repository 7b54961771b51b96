"""By what amphorae are known, and until when.

Revision ID: 0012
Revises: 0011"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from frontinus.store.migrations import online

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.add_column("amphora", sa.Column("identity_digest", sa.String(length=64), nullable=True))
    op.add_column("amphora", sa.Column("certificate_expires_at", sa.BigInteger(), nullable=True))
    op.add_column("amphora", sa.Column("certificate_renew_at", sa.BigInteger(), nullable=True))
    online.create_index("ix_amphora_certificate_renew_at", "amphora", ["certificate_renew_at"])
    online.create_index("ix_amphora_identity_digest", "amphora", ["identity_digest"])


def downgrade() -> None:
    op.drop_index("ix_amphora_identity_digest", "amphora")
    op.drop_index("ix_amphora_certificate_renew_at", "amphora")
    for name in ("certificate_renew_at", "certificate_expires_at", "identity_digest"):
        op.drop_column("amphora", name)
