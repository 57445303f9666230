"""Steering the samples: denoisers made of denoisers, so that every sampler takes them, and what acts between steps."""
