"""What is read off a network at perturbed inputs."""
