"""Sabotage of the wrappers, the later clips and L-DoG: more mutants for `tests/mutants.py`.

    python tests/mutants_wrappers.py                all of them
    python tests/mutants_wrappers.py lookahead      those of the files with these names

They are run as `tests/mutants.py` runs its own.
"""

import sys

import mutants

MUTANTS = {
    "wrappers/lookahead": [
        ("def lookahead_rule", "(p + u - slow)", "(p - slow)"),
        ("def lookahead_rule", "met - p, u", "met, u"),
        ("def lookahead_rule", "jnp.where(sync, met, slow)", "slow"),
        ("def lookahead_rule", "jnp.where(sync, met, slow)", "slow + sync * (met - slow)"),
        ("def transform", "steps >= self.sync_period", "steps == self.sync_period"),
        ("def transform", "steps >= self.sync_period", "steps > self.sync_period"),
        ("def transform", "jnp.where(sync, 0, steps)", "steps"),
        ("def transform", "apply_updates(params, updates)", "params"),
        ("def transform", "if self.reset_state", "if not self.reset_state"),
        ("def transform", "state.fast_state, params, **extra_args", "state.fast_state, params"),
        ("def transform", "state.fast_state, params, **extra_args",
         "state.fast_state, None, **extra_args"),
        ("def update", "held, params.fast", "held, params.slow"),
        ("def update", "if state.slow is None:", "if True:"),
        ("def update", "slow = narrow(", "slow = (lambda x, like: x)("),
        ("def init", "copy_of(params)", "None"),
        ("def lookahead_point", "params.fast if", "params if"),
        ("def validate", 'check_nonnegative("slow', 'str("slow'),
    ],
    "wrappers/average": [
        ("def ema_params_rule", "p + u - m", "p - m"),
        ("def ema_params_rule", "return u,", "return 2 * u,"),
        ("class ema_params(", "if self.debias else", "if not self.debias else"),
        ("class ema_params(", "as_float(count))", "as_float(state.count))"),
        ("class ema_params(", ", self.dtype)", ")"),
        ("class ema_params(", "EmaParamsState(count, mean)", "EmaParamsState(state.count, mean)"),
        ("def _newest", "1 / t if decay == 1", "1 if decay == 1"),
        ("def _newest", "(1 - rate) / bias_correction(rate, t), 1 / t)",
         "(1 - rate) / bias_correction(rate, t), 1)"),
        ("def _newest", "/ bias_correction(decay, t)", "/ (1 - decay**t)"),
        ("def eval_params(state: State", "if i in source", "if False"),
        ("def eval_params(state: State", "if not source and", "if False and"),
        ("def eval_params(state: State", "or jnp.shape(leaf) != jnp.shape(flat[i][1])", ""),
        ("def eval_params(state: State", "return params.slow", "return params.fast"),
        ("def eval_params(state: State", "is_leaf=_answers", "is_leaf=None"),
        ("def eval_params(state: State", "narrow(jax.tree.unflatten(treedef, leaves), like=params)",
         "jax.tree.unflatten(treedef, leaves)"),
    ],
    "wrappers/flatten": [
        ("def _parts", "== c", "!= c"),
        ("def _ravel", "jnp.zeros_like(likes[i])", "jnp.ones_like(likes[i])"),
        ("def _unravel", "if leaves[i] is not None", "if True"),
        ("def transform", "updates if params is None else params", "updates"),
        ("def transform", "            **extra_args,\n", ""),
        ("def transform", "None if params is None else _ravel(params, like)", "None"),
        ("def lookahead_point", "narrow(_unravel(point, params, params), like=params)",
         "_unravel(point, params, params)"),
    ],
    "wrappers/monitor": [
        ("class snapshot", "optimised_only(params)", "params"),
        ("class snapshot", "optimised_only(updates)", "updates"),
        ("class snapshot", ", copy=True)", ", copy=False)"),
        ("class snapshot", "_typed_as(old, measured)", "old"),
        ("class monitor", "sorted(self.measures)", "self.measures"),
        ("class monitor", "_typed_as(state.measurements[name], measured)", "measured"),
        ("class monitor", "states.append(new)", "states.append(old)"),
        ("class monitor", "params, **extra_args)", "params)"),
        ("class measure_with_ema", "self.decay, self.debias", "self.decay, True"),
        ("def _as_inexact", "return array if", "return array if True or"),
        ("def _typed_as", "o if n is None else", ""),
        ("def _fresh_zeros", "jnp.zeros_like", "jnp.ones_like"),
    ],
    "transforms/clip": [
        ("def _unit_axes", "<= 1", "<= 2"),
        ("def _unit_axes", "<= 3", "<= 2"),
        ("def _unit_axes", "len(shape) - 1)", "len(shape))"),
        ("def _norm", "jnp.where(positive, square, 1)", "square"),
        ("def unitwise_rule", "jnp.maximum(own, eps)", "own"),
        ("def unitwise_rule", "norm <= bound", "norm < bound"),
        ("def unitwise_rule", "norm <= bound", "~(norm > bound)"),
        ("def unitwise_clip", "jnp.maximum(g_norm, div_eps)", "g_norm"),
        ("def unitwise_norm", "common_precision([array])(array)", "array"),
        ("def per_example_global", "nan=1.0", "nan=0.0"),
        ("def per_example_global", "factors < 1", "factors <= 1"),
        ("def per_example_layer", "share**0.5", "share"),
        ("def per_example_layer", "1 / len(leaves) if uniform", "1 if uniform"),
        ("def _check_batch", "or not shapes[0]", ""),
    ],
    "optimizers/ldog": [
        ("def first_distance", "1 + leaf_norm", "leaf_norm"),
        ("def ldog_rule", "leaf_norm(p - start, d)", "leaf_norm(p - start, 0.0)"),
        ("def ldog_rule", "s + jnp.sum", "jnp.sum"),
        ("def ldog_rule", "rsqrt(s + eps)", "rsqrt(s)"),
        ("def ldog_rule", "global_scale * d", "d"),
        ("class scale_by_distance", "copy_of(params, self.param_dtype)", "copy_of(params)"),
        ("class scale_by_distance", "reps_rel: Hyper = 1e-6", "reps_rel: Hyper = 1e-5"),
    ],
}  # fmt: skip

if __name__ == "__main__":
    mutants.MUTANTS = MUTANTS
    sys.exit(mutants.main(sys.argv[1:]))
