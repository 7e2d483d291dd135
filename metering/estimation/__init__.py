"""The estimation ladder: missing intervals from what is known of the meter itself, in whole Wh."""
