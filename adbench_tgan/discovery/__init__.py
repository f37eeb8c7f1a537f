"""Detectors found by name or by file, and what strangers' hooks return, checked."""
