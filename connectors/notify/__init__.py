"""Alarms on their way to people and machines: webhook, e-mail, MQTT."""
