"""Reading, checking, storing, ordering and batching examples. Never sees a model."""
