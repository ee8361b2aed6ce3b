"""The scenario language: models, loading with positions, packets from short forms, schema."""
