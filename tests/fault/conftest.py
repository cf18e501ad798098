"""What the fault tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Workers and drivers in processes of their own import tests.fault.*; Ray hands this process's path on to its workers.
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), *(part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != str(ROOT))]
)
