"""What the service is for. A new entity is one file here and one line below."""

from worker.entities.order import ORDER
from worker.entities.user import USER

ENTITIES = (USER, ORDER)
