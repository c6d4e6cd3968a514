"""What of a method is saved, and how it comes back: its arguments, optimizers, and what Keras leaves out."""

import inspect

import keras
import numpy as np


class Persistence:
    """Saving and loading of a `Method`, to be inherited from before `keras.Model`."""

    def get_config(self):
        """The arguments of the constructor, each of which is kept under its own name; networks serialized."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in names}

    @classmethod
    def from_config(cls, config):
        """Builds the method from what `get_config` returned."""
        return cls(
            **{
                key: keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value
                for key, value in config.items()
            }
        )

    def get_compile_config(self):
        """One serialized optimizer for each role that learns, and how the passes are made."""
        roles = [role for role in self.roles if hasattr(self, f"{role}_optimizer")]
        options = {f"{role}_optimizer": getattr(self, f"{role}_optimizer") for role in roles}
        options |= {"micro_batches": self.micro_batches, "recompute": self.recompute}
        options["backbone_learning_rate_factor"] = self.backbone_learning_rate_factor
        return {key: keras.saving.serialize_keras_object(value) for key, value in options.items()}

    def compile_from_config(self, config):
        """Compiles with what `get_compile_config` described."""
        self.compile(**{key: keras.saving.deserialize_keras_object(value) for key, value in config.items()})

    def random_states(self) -> list:
        """The seed states of dropout and its like: in a network's `variables`, not in its `weights`."""
        networks = [getattr(self, role) for role in self.roles]
        known = {id(weight) for network in networks for weight in network.weights}
        return [v for network in networks for v in network.variables if id(v) not in known]

    def running_means(self) -> list:
        """What the metrics of training have summed up since the epoch began."""
        return [v for tracker in [*self.train_trackers, *self.skip_trackers] for v in tracker.variables]

    def save_own_variables(self, store):
        """Saves the step counter and, which Keras leaves out, random states and running means."""
        super().save_own_variables(store)
        for name, variables in self._left_out_by_keras():
            for index, variable in enumerate(variables):
                store[f"{name}_{index}"] = np.asarray(variable)

    def load_own_variables(self, store):
        """Restores what `save_own_variables` wrote."""
        others = {key: store[key] for key in tuple(store.keys())}
        for name, variables in self._left_out_by_keras():
            for index, variable in enumerate(variables):
                variable.assign(others.pop(f"{name}_{index}"))
        super().load_own_variables(others)

    def _left_out_by_keras(self):
        return ("random_state", self.random_states()), ("running_mean", self.running_means())
