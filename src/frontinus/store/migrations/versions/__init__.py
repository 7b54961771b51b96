"""One module per schema step, in order; see the `down_revision` of each."""
