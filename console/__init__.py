"""The web console: live page, a meter's page, REST."""
