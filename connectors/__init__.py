"""The edge: the MQTT bridge, simulator and replay, the supervisor and the components that it starts."""
