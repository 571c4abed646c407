"""One flat training loop, what it needs to survive interruption, and what it writes down."""
