"""Robustness: corruptions, perturbations, attacks, natural adversarial images, and their scores."""
