"""What happens to one image: float64 `[H, W, C]` in 0…1 in and, before clipping, out; lengths in pixels.

Where an effect is random it draws from the NumPy generator that it is given. Written from the descriptions and
parameters in Hendrycks, Dietterich 2019, *Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations*, arXiv 1903.12261; docs/evaluation.md lists what differs.
"""
