"""What the recipes share: flags, builders, the start and the steps of a program."""
