"""What the recipes share: flags, builders, the start and the course of a program."""
