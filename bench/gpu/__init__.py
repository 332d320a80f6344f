"""What can only be measured where there are GPUs."""
