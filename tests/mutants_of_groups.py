"""Sabotage of what gives leaves and numbers names: more mutants for `tests/mutants.py`.

    python tests/mutants_of_groups.py               all of them
    python tests/mutants_of_groups.py partition     those of the files with these names

They are run as `tests/mutants.py` runs its own.
"""

import sys

import mutants

MUTANTS = {
    "core/partition": [
        ("def init", "_only(params, labels, label)", "params"),
        ("def transform", "updates if params is None else params)\n        match",
         "updates)\n        match"),
        ("def transform", "_only(tree, labels, label)", "_only(tree, labels, labels[0])"),
        ("def transform", "MaskedState(inner_state)", "state.inner_states[label]"),
        ("def transform", "None if params is None else select(params)", "None"),
        ("class partition", "if is_function(self.param_labels)", "if callable(self.param_labels)"),
        ("class partition", "[label] * _size(part)", "[label]"),
        ("class partition", "_nearest(label, self.transforms)", '""'),
        ("class partition", "if not self.mask_compatible_extra_args", "if True"),
        ("class groups", 'name += "\'"', "break"),
        ("class groups", "check_rules_fit(self.rules, params)\n", "pass\n"),
        ("def first_fit", "if is_optimised(leaf) else ()", ""),
        ("def first_fit", "re.search(rule, path)", "re.fullmatch(rule, path)"),
        ("def first_fit", "enumerate(rules if", "reversed([*enumerate(rules)] if"),
        ("def check_rules_fit", "if is_optimised(leaf)]", "]"),
        ("def check_rules_fit", "if leaves and", "if"),
        ("def check_rule(", "except re.error as error", "except ZeroDivisionError as error"),
    ],
    "wrappers/freeze": [
        ("class freeze", "is None and isinstance(mask, TransformationPair)", "is None and False"),
        ("class freeze", "(identity(), mask) if pattern is None", "(identity(), mask) if True"),
        ("class freeze", "check_rule(self.pattern)", "pass"),
        ("class freeze", "checked_mask(self.pattern)", "self.pattern"),
        ("class freeze", "check_rules_fit([self.pattern], params)", "pass"),
        ("class freeze", "path, leaf) == 1", "path, leaf) == 0"),
        ("class freeze", "lambda frozen: not frozen", "lambda frozen: frozen"),
        ("class freeze", 'unselected="zero"', 'unselected="pass"'),
        ("class freeze", "return masked(self.inner,", "return masked(identity(),"),
        ("class freeze", "or is_plain_callable(self.pattern)", ""),
        ("class _hold", "still(updates)", "updates"),
        ("class selective_transform", '"freeze" if frozen', '"freeze" if not frozen'),
        ("class selective_transform", "checked_mask(self.freeze_mask)", "self.freeze_mask"),
    ],
    "wrappers/inject": [
        ("class injected", "not in self.static_args", "not in ()"),
        ("class injected", "node.replace(**{last: value})", "pass"),
        ("class injected", "_stateful(value)(states[name], **extra_args)",
         "_stateful(value)(states[name])"),
        ("class injected", "jnp.asarray(number, self._dtype())", "jnp.asarray(number)"),
        ("class injected", "self.hyperparam_dtype or", ""),
        ("class injected", "if set(named) != set(state.hyperparams)", "if False"),
        ("class injected", "count = safe_increment(state.count)", "count = state.count"),
        ("class injected", "_stateful(named[name][1]).update(old, **extra_args)", "old"),
        ("class injected", "(count, numbers, states, inner_state)",
         "(count, state.hyperparams, states, inner_state)"),
        ("class injected", "constant - rounded, 0.0", "0.0, 0.0"),
        ("class injected", "jnp.where(value == rounded, constant - rounded, 0.0)",
         "constant - rounded"),
        ("def set_hyperparams", "if name not in free", "if name not in places"),
        ("def set_hyperparams", "if place.name in place.state.hyperparams_states", "if False"),
        ("def set_hyperparams", "place.owner.check(place.name, value)", "pass"),
        ("def set_hyperparams", "replaced.get(id(place.state), place.state)", "place.state"),
        ("def set_hyperparams", "jnp.full_like(new.hyperparams[place.name], value)", "value"),
        ("def _shortest", "last.count(path[-1]) == 1", "True"),
        ("def _numbers", "if isinstance(node, injected)", "if False"),
        ("def _numbers", "isinstance(node, Value) and not isinstance(node, Schedule)",
         "isinstance(node, Value)"),
    ],
    "inspect/describe": [
        ("def __str__", "if self.parameters else 0.0", ""),
        ("def __str__", '"  " * depth', '""'),
        ("def __str__", "if any(label for *_, label in self.leaves)", "if True"),
        ("def __str__", "self.state_bytes / self.parameters",
         "self.state_bytes / len(self.leaves)"),
        ("def describe", "as_transformation(tx)\n    state", "tx\n    state"),
        ("def describe", "if is_optimised(leaf)]", "]"),
        ("def describe", 'labels.get(path, "")', '""'),
        ("def describe", "jax.eval_shape(tx.init, params)", "tx.init(params)"),
        ("def describe", "math.prod(np.shape(leaf))", "1"),
        ("def state_bytes", "* leaf.dtype.itemsize", "* 4"),
        ("def _stages", "if inner else repr(tx)", ""),
        ("def _stages", "if path in labels else str(label)", "if False else str(label)"),
        ("def _stages", "tx.inner_params(part, params)", "params"),
        ("def _stages", '"" if part.isdigit() or', '"" if'),
        ("def _stages", "depth + 1, labels", "depth, labels"),
    ],
    "compat/optax": [
        ("_SUBMODULES", '    "tree_utils",\n', ""),
        ("class _Submodule", 'if name.startswith("__")', "if True"),
        ("class _Submodule", 'in ("tree", "tree_utils")', 'in ("tree_utils",)'),
        ("class _Submodule", 'name.removeprefix("tree_") if', "name if"),
        ("class _Submodule", 'getattr(value, "__module__", "").startswith("gradtx.")', "False"),
        ("class _Submodule", "elif name in gradtx.__all__", "elif False"),
        ("class _Submodule", 'f"optax.{short}")', '"optax")'),
        ("def __getattr__(name: str)", "if name in gradtx.__all__", "if False"),
        ("def __dir__", "except ImportError", "except ZeroDivisionError"),
        ("def __dir__", "*_SUBMODULES, ", ""),
        ("def __dir__", ", *installed", ""),
        ("def _installed", 'and name != "__version__"', ""),
        ("def _installed", '"pip install optax"', '""'),
        ("def _installed", "except ImportError as error", "except ZeroDivisionError as error"),
        ("def _installed", 'f"neither gradtx nor {module} has {name!r}"', "name"),
    ],
}  # fmt: skip

if __name__ == "__main__":
    mutants.MUTANTS = MUTANTS
    sys.exit(mutants.main(sys.argv[1:]))
