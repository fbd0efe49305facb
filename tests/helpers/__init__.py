"""What tests share; a test imports no other test."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
