"""Theft without labels: each meter is judged against its own trusted past, its peers and its transformer's residual."""
