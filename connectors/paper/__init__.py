"""A bill on paper: as a page for phone and printer, and as PDF, from one sheet of words and figures."""
