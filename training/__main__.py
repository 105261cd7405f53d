"""``python -m training``."""

from training.allocator import keep_freed_memory
from training.cli import app

if __name__ == "__main__":
    keep_freed_memory()
    app()
