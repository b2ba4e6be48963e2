"""What each aten operation does to kinds and receptive fields: one rule per operation."""
