"""Noise, rooms and poor lines for clean recordings, at a distance in dB that is asked for."""
