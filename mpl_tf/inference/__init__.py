"""What a finished network says about many images: soft labels and predictions on disk."""
