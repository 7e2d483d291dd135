"""Alarms: their kinds, the conditions that raise them, and their life-cycle after ISA-18.2; pure."""
