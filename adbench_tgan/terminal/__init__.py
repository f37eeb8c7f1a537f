"""How a long command shows itself, and tables for people to read."""
