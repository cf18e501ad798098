"""Manifests of fleets: Kubernetes, clouds, Slurm."""
