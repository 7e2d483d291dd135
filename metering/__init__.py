"""The pure core: decisions and arithmetic over columns. No input or output, no clock, no chance."""
