"""Weak and strong views of images, stateless: functions of (seed, position)."""
