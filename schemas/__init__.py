"""The words of the project: ids, units, reading and frame types, codecs, topic names, settings."""
