"""A trained network as one fused graph of plain operations."""
