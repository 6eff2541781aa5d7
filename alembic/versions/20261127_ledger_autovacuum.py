"""vacuum the ledger while little of it is dead

Revision ID: 0002
Revises: 0001

Retention deletes as many rows as commands come. By default PostgreSQL vacuums a table when a fifth
of it is dead: of a week with 1,000 commands a second that is 120 million rows at once, whose room
the table keeps for good. These thresholds make many short vacuums of it.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

PARAMETERS = {
    "autovacuum_vacuum_scale_factor": "0.02",
    "autovacuum_vacuum_insert_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.05",
}


def upgrade() -> None:
    settings = ", ".join(f"{name} = {value}" for name, value in PARAMETERS.items())
    # Waits for no command, and no command for it (SHARE UPDATE EXCLUSIVE).
    op.execute(f"ALTER TABLE command_ledger SET ({settings})")


def downgrade() -> None:
    op.execute(f"ALTER TABLE command_ledger RESET ({', '.join(PARAMETERS)})")
