"""How a training step is computed: micro-batches, rematerialization, loss scaling, sampling, pseudo labeling."""
