"""Real components that pip brings: an MQTT broker, Apache Kafka, PostgreSQL, each started on loopback (design §3.11)."""
