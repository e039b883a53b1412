"""Sabotage: each mutant of a rule, stage or schedule must turn its mirrored tests red.

    python tests/mutants.py                 all of them
    python tests/mutants.py adam cosine     those of the files with these names

Every mutant is applied to a temporary copy of the repository; the repository is not touched.
"""

import concurrent.futures
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent

# File: mutants of (where the search begins, old text, new text).
MUTANTS = {
    "optimizers/sgd": [
        ("def compose", "if self.momentum is None", "if not self.momentum"),
        ("def compose", "self.nesterov,", "False,"),
        ("def compose", "self.nesterov,", "not self.nesterov,"),
        ("def compose", ", self.accumulator_dtype", ""),
        ("            trace(", "            trace(self.momentum,", "            trace(0.9,"),
        ("            trace(", "scale_by_learning_rate(self.learning_rate)", "identity()"),
        ("def compose", "scale_by_learning_rate(self.learning_rate)", "identity()"),
    ],
    "optimizers/momentum": [
        (
            "def compose",
            "scale_by_learning_rate(self.learning_rate), trace(self.momentum)",
            "trace(self.momentum), scale_by_learning_rate(self.learning_rate)",
        ),
        ("def compose", "trace(self.momentum)", "trace(self.momentum, True)"),
        ("def compose", "trace(self.momentum)", "trace(0.9)"),
        ("class classical", "momentum: Hyper = 0.9", "momentum: Hyper = 0.8"),
    ],
    "optimizers/nesterov": [
        ("def lookahead_rule", "x + decay * v", "x - decay * v"),
        ("def lookahead_rule", "x + decay * v", "x + v"),
        ("def compose", "trace(self.momentum, True)", "trace(self.momentum)"),
        ("def compose", "if self.lookahead", "if not self.lookahead"),
        ("def compose", "scale_by_learning_rate(self.learning_rate), stage", "stage, "
         "scale_by_learning_rate(self.learning_rate)"),
        ("def lookahead_point", "return narrow(point, like=params)", "return point"),
        ("class nesterov", "momentum: Hyper = 0.9", "momentum: Hyper = 0.8"),
        ("def validate", "if self.nesterov:", "if False:"),
    ],
    "optimizers/adagrad": [
        ("def adagrad_rule", "s + abs_sq(g)", "abs_sq(g)"),
        ("def adagrad_rule", "s + abs_sq(g)", "s + jnp.abs(g)"),
        ("def adagrad_rule", "(jnp.sqrt(s) + eps)", "jnp.sqrt(s + eps)"),
        ("def adagrad_rule", "eps), s", "eps), s - abs_sq(g)"),
        ("def adagrad_eps", "rsqrt(s + eps)", "rsqrt(s)"),
        ("def adagrad_eps", "s + abs_sq(g)", "s + g * g"),
        ("def adagrad_eps", "jnp.where(s > 0, jax.lax.rsqrt(s + eps), 0)",
         "jax.lax.rsqrt(s + eps * eps)"),
        ("def init", "self.initial_accumulator_value", "0.0"),
        ("def init", ", real=True", ""),
        ("def transform", "if self.eps_in_sqrt", "if not self.eps_in_sqrt"),
        ("def transform", "return updates, ScaleByRssState(s)", "return updates, state"),
        ("class adagrad", "initial_accumulator_value: Hyper = 0.1", "initial_accumulator_value: "
         "Hyper = 0.0"),
        ("class adagrad", "eps: Hyper = 1e-7", "eps: Hyper = 1e-4"),
    ],
    "optimizers/rmsprop": [
        ("def rms_rule", "decay * nu + (1 - decay)", "(1 - decay) * nu + decay"),
        ("def rms_rule", "nu / correction", "nu"),
        ("def rms_rule", "(jnp.sqrt(nu / correction) + eps)", "jnp.sqrt(nu / correction + eps)"),
        ("def rms_rule", "abs_sq(g)", "jnp.abs(g)"),
        ("def rms_eps", "jnp.sqrt(nu / correction + eps)", "(jnp.sqrt(nu / correction) + eps)"),
        ("def rms_eps", "nu / correction", "nu"),
        ("def rms_eps", "(1 - decay) * abs_sq(g)", "abs_sq(g)"),
        ("def rms_eps", "eps), nu", "eps), nu * correction"),
        ("def centered_rms_rule", "mu = decay * mu + (1 - decay) * g", "mu = g"),
        ("def centered_rms_rule", "mu / correction", "mu"),
        ("def centered_rms_rule", ", nu / correction", ", nu"),
        ("def centered_rms_rule", "eps), mu, nu", "eps), 0 * mu, nu"),
        ("def centered_rms_rule", ") + eps)", " + eps))"),
        ("def centered_rms_eps", "mu / correction", "mu"),
        ("def centered_rms_eps", ", nu / correction", ", nu"),
        ("def centered_rms_eps", "nu / correction) + eps)", "nu / correction)) + eps"),
        ("def centered_rms_eps", "eps), mu, nu", "eps), mu, 0 * nu"),
        ("def variance", "nu - abs_sq(mu)", "nu + abs_sq(mu)"),
        ("def variance", "jnp.maximum(nu - abs_sq(mu), 0)", "nu - abs_sq(mu)"),
        ("def variance", "abs_sq(mu)", "mu * mu"),
        ("class scale_by_rms", "self.initial_scale, real", "0.0, real"),
        ("class scale_by_rms", "if self.eps_in_sqrt", "if not self.eps_in_sqrt"),
        ("class scale_by_rms", "state._replace(nu=nu)", "state"),
        ("class scale_by_stddev", "self.initial_scale, real", "0.0, real"),
        ("class scale_by_stddev", "if self.eps_in_sqrt", "if not self.eps_in_sqrt"),
        ("class scale_by_stddev", "state._replace(mu=mu, nu=nu)", "state._replace(nu=nu)"),
        ("class scale_by_stddev", "state._replace(mu=mu, nu=nu)", "state._replace(mu=mu)"),
        ("def _advance", "state._replace(count=t)", "state"),
        ("def _advance", "as_float(t)", "as_float(t + 1)"),
        ("def _advance", "as_float(t)", "as_float(state.count)"),
        ("def compose", "if self.centered", "if not self.centered"),
        ("def compose", "trace(self.momentum, self.nesterov)", "trace(self.momentum)"),
        ("def compose", "self.eps_in_sqrt, self.bias", "self.bias_correction, self.bias"),
        ("class rmsprop(", "decay: Hyper = 0.9", "decay: Hyper = 0.99"),
        ("class rmsprop(", "eps: Hyper = 1e-8", "eps: Hyper = 1e-7"),
    ],
    "optimizers/adam": [
        ("def adam_rule", "b1 * mu + (1 - b1) * g", "b2 * mu + (1 - b2) * g"),
        ("def adam_rule", "b2 * nu + (1 - b2)", "b1 * nu + (1 - b1)"),
        ("def adam_rule", "b2 * nu + (1 - b2)", "b2 * nu - (1 - b2)"),
        ("def adam_rule", "mu / bias_correction(b1, t)", "mu"),
        ("def adam_rule", "nu / bias_correction(b2, t)", "nu"),
        ("def adam_rule", "bias_correction(b1, t)", "bias_correction(b2, t)"),
        ("def adam_rule", "bias_correction(b1, t)", "bias_correction(b1, t + 1)"),
        ("def adam_rule", "jnp.sqrt(nu_hat + eps_root) + eps", "jnp.sqrt(nu_hat + eps) + eps_root"),
        ("def adam_rule", " + eps)", ")"),
        ("def adam_rule", "abs_sq(g)", "g * g"),
        ("def adam_rule", "eps), mu, nu", "eps), mu_hat, nu"),
        ("def almost_adam_rule", "return mu /", "return mu / bias_correction(b1, t) /"),
        ("def almost_adam_rule", "b2 * nu + (1 - b2)", "b1 * nu + (1 - b1)"),
        ("def almost_adam_rule", "nu + eps_root", "nu"),
        ("def almost_adam_rule", "eps), mu, nu", "eps), mu, 0 * nu"),
        ("def nesterov_adam_rule", "b1, t + 1", "b1, t"),
        ("def nesterov_adam_rule", "b1 * mu / bias", "mu / bias"),
        ("def nesterov_adam_rule", "(1 - b1) * g / bias_correction(b1, t)", "(1 - b1) * g"),
        ("def nesterov_adam_rule", "nu / bias_correction(b2, t)", "nu"),
        ("def nesterov_adam_rule", "nu_hat + eps_root", "nu_hat + eps"),
        ("def nesterov_adam_rule", "nu = b2 * nu + (1 - b2)", "nu = b2 * nu + b2"),
        ("def init", "zeros_like(params, self.mu_dtype)", "zeros_like(params)"),
        ("def init", "zeros_like(params, real=True)", "zeros_like(params, self.mu_dtype)"),
        ("def transform", "if self.nesterov", "if not self.nesterov"),
        ("def transform", "if not self.bias_correction", "if False"),
        ("def transform", "t = safe_increment(state.count)", "t = state.count + 2"),
        ("def transform", "ScaleByAdamState(t, mu, nu)", "ScaleByAdamState(state.count, mu, nu)"),
        ("def transform", "ScaleByAdamState(t, mu, nu)", "ScaleByAdamState(t, state.mu, nu)"),
        ("def transform", "ScaleByAdamState(t, mu, nu)", "ScaleByAdamState(t, mu, state.nu)"),
        ("class adam(", "= 1e-3", "= 1e-2"),
        ("class adam(", "b2: Hyper = 0.999", "b2: Hyper = 0.99"),
        ("class adam(", "bias_correction=self.bias_correction", "bias_correction=True"),
        ("class adam(", "self.eps, self.eps_root", "self.eps_root, self.eps"),
        ("class adamw", "add_decayed_weights(self.weight_decay, self.mask)",
         "add_decayed_weights(self.weight_decay)"),
        ("class adamw", "weight_decay: ScalarOrSchedule = 1e-4", "weight_decay: "
         "ScalarOrSchedule = 1e-2"),
        ("class adamw", "nesterov=self.nesterov", "nesterov=False"),
        (
            "class adamw",
            "add_decayed_weights(self.weight_decay, self.mask),\n"
            "            scale_by_learning_rate(self.learning_rate)",
            "scale_by_learning_rate(self.learning_rate),\n"
            "            add_decayed_weights(self.weight_decay, self.mask)",
        ),
    ],
    "optimizers/adamax": [
        ("def adamax_rule", "b1 * mu + (1 - b1) * g", "b1 * mu + g"),
        ("def adamax_rule", "jnp.maximum(b2 * nu,", "jnp.maximum(nu,"),
        ("def adamax_rule", "jnp.maximum", "jnp.minimum"),
        ("def adamax_rule", "jnp.abs(g) + eps", "jnp.abs(g)"),
        ("def adamax_rule", "jnp.abs(g) + eps", "g + eps"),
        ("def adamax_rule", "mu / bias_correction(b1, t)", "mu"),
        ("def adamax_rule", "bias_correction(b1, t)", "bias_correction(b2, t)"),
        ("def adamax_rule", "mu, nu\n", "0 * mu, nu\n"),
        ("def transform", "ScaleByAdamState(t, mu, nu)", "ScaleByAdamState(t, mu, state.nu)"),
        ("def transform", "ScaleByAdamState(t, mu, nu)", "ScaleByAdamState(state.count, mu, nu)"),
        ("class adamax(", "self.b1, self.b2", "self.b2, self.b1"),
        ("class adamaxw", "self.b1, self.b2", "self.b2, self.b1"),
        ("class adamaxw", "self.weight_decay, self.mask", "self.weight_decay"),
        ("class adamaxw", "weight_decay: ScalarOrSchedule = 1e-4", "weight_decay: "
         "ScalarOrSchedule = 0.0"),
    ],
    "optimizers/nadam": [
        ("def nadam_rule", "b1 * mu + (1 - b1) * g", "momentum * mu + (1 - momentum) * g"),
        ("def nadam_rule", "b2 * nu + (1 - b2)", "b2 * nu + b2"),
        ("def nadam_rule", "next_momentum * mu /", "momentum * mu /"),
        ("def nadam_rule", "(1 - momentum_product * next_momentum)", "(1 - momentum_product)"),
        ("def nadam_rule", "(1 - momentum) * g", "(1 - b1) * g"),
        ("def nadam_rule", "g / (1 - momentum_product)", "g"),
        ("def nadam_rule", "nu / bias_correction(b2, t)", "nu"),
        ("def nadam_rule", "nu_hat + eps_root) + eps", "nu_hat + eps) + eps_root"),
        ("def nadam_rule", "mu_hat + g_hat", "mu_hat - g_hat"),
        ("def init", "as_float(1.0)", "as_float(0.5)"),
        ("def momentum", "0.96", "0.9"),
        ("def momentum", "1 - 0.5", "1 - 0.4"),
        ("def transform", "self.momentum(t + 1)", "self.momentum(t)"),
        ("def transform", "(state.momentum_product * momentum)", "(momentum)"),
        ("def transform", "ScaleByNadamState(count, product", "ScaleByNadamState(state.count, "
         "product"),
        ("def transform", "(count, product,", "(count, state.momentum_product,"),
        ("def transform", "product, mu, nu)", "product, mu, state.nu)"),
        ("class nadam(", "nesterov: bool = static(default=True", "nesterov: bool = "
         "static(default=False"),
        ("class nadamw", "self.weight_decay, self.mask", "self.weight_decay"),
        ("class nadamw", "weight_decay: ScalarOrSchedule = 1e-4", "weight_decay: "
         "ScalarOrSchedule = 1e-2"),
        ("def _stage", "nesterov=tx.nesterov", "nesterov=True"),
        ("def _stage", "momentum_decay=tx.momentum_decay", "momentum_decay=4e-3"),
        ("def _stage", "if not tx.nesterov", "if False"),
    ],
    "optimizers/amsgrad": [
        ("def amsgrad_rule", "b1 * mu + (1 - b1) * g", "b2 * mu + (1 - b2) * g"),
        ("def amsgrad_rule", "b2 * nu + (1 - b2)", "b1 * nu + (1 - b1)"),
        ("def amsgrad_rule", "jnp.maximum(nu_max, nu / nu_correction)", "nu / nu_correction"),
        ("def amsgrad_rule", "nu / nu_correction", "nu"),
        ("def amsgrad_rule", "mu / mu_correction", "mu"),
        ("def amsgrad_rule", "nu_max + eps_root) + eps", "nu_max + eps) + eps_root"),
        ("def amsgrad_rule", "mu, nu, nu_max\n", "mu, nu_max, nu_max\n"),
        ("def amsgrad_max", "jnp.maximum(nu_max, nu)", "nu"),
        ("def amsgrad_max", "nu_max / nu_correction", "nu_max"),
        ("def amsgrad_max", "mu / mu_correction", "mu"),
        ("def amsgrad_max", "mu, nu, nu_max\n", "mu, nu, nu_hat\n"),
        ("def amsgrad_max", "nu_hat + eps_root) + eps", "nu_hat + eps) + eps_root"),
        ("def init", "zeros_like(params, self.mu_dtype)", "zeros_like(params)"),
        ("def transform", "if self.max_before_correction", "if not self.max_before_correction"),
        ("def transform", "bias_correction(self.b1, t)", "bias_correction(self.b2, t)"),
        ("def transform", "if self.bias_correction_mu", "if self.bias_correction_nu"),
        ("def transform", "if self.bias_correction_nu", "if self.bias_correction_mu"),
        ("def transform", "State(count, mu, nu, nu_max)", "State(state.count, mu, nu, nu_max)"),
        ("def transform", "State(count, mu, nu, nu_max)", "State(count, mu, nu, state.nu_max)"),
        ("def transform", "State(count, mu, nu, nu_max)", "State(count, mu, state.nu, nu_max)"),
        ("class amsgrad", "self.bias_correction_mu, self.bias_correction_nu",
         "self.bias_correction_nu, self.bias_correction_mu"),
        ("class amsgrad", "=self.max_before_correction", "=False"),
    ],
    "transforms/clip": [
        ("def clip_rule", "return jnp.clip(u, -max_delta", "return jnp.clip(u, 0"),
        ("def clip_rule", "if jnp.iscomplexobj(u)", "if False"),
        ("def clip_rule", "complex(real, imag)", "complex(imag, real)"),
        ("class clip_by", "self.max_norm / norm", "norm / self.max_norm"),
        ("class clip_by", "jnp.minimum(1.0, self.max_norm / norm)", "self.max_norm / norm"),
        ("class clip_by", ", jnp.nan)", ", 0.0)"),
        ("class clip_by", "jnp.isfinite(norm)", "True"),
        ("class clip_by", "global_norm(updates)", "global_norm(updates) ** 2"),
    ],
    "transforms/decay": [
        ("def decay_rule", "u + weight_decay * p", "u - weight_decay * p"),
        ("def decay_rule", "weight_decay * p", "weight_decay * u"),
        ("def transform", "safe_increment(state.count)", "state.count"),
        ("def transform", "state.count)\n        new", "state.count + 1)\n        new"),
        ("def transform", "if params is None", "if False"),
        ("def _masked", "self.mask)", "True)"),
        ("class add", "weight_decay: ScalarOrSchedule = 0.0", "weight_decay: "
         "ScalarOrSchedule = 0.1"),
        ("def _decay", "weight_decay == 0.0", "weight_decay != 0.0"),
    ],
    "transforms/scale": [
        ("def scale_rule", "step_size * u", "-step_size * u"),
        ("def scale_rule", "step_size * u", "step_size + u"),
        ("class scale_by_schedule", "state.count)\n", "state.count + 1)\n"),
        ("class scale_by_schedule", "safe_increment(state.count)", "state.count"),
        ("class scale_by_schedule", "safe_increment(state.count)", "state.count + 1"),
        ("class scale_by_learning", "-rate if", "rate if"),
        ("class scale_by_learning", "else rate", "else -rate"),
        ("class scale_by_learning", "rate(state.count)", "rate(state.count + 1)"),
        ("class scale_by_learning", "safe_increment(state.count)", "state.count"),
        ("class scale_by_learning", "static(default=True", "static(default=False"),
    ],
    "transforms/stateless": [
        ("class identity", "return updates", "return jax.tree.map(lambda u: -u, updates)"),
        ("def _zero_rule", "zeros_like(u)", "ones_like(u)"),
        ("def _zero_rule", "jax.numpy.zeros_like(u)", "0 * u"),
        ("class stateless", "optimised_only(params)", "params"),
        ("class stateless", "self.f(optimised_only(updates)", "self.f(updates"),
        ("class Stateless", "self.apply(updates, params)", "self.apply(updates, None)"),
    ],
    "transforms/trace": [
        ("def trace_rule", "decay * v + u", "decay * (v + u)"),
        ("def trace_rule", "decay * v + u", "decay * v + (1 - decay) * u"),
        ("def trace_rule", "return v, v", "return v, u"),
        ("def nesterov_trace", "return decay * v + u, v", "return v, v"),
        ("def nesterov_trace", "return decay * v + u, v", "return decay * v, v"),
        ("def nesterov_trace", "return decay * v + u, v", "return decay * v + u, decay * v + u"),
        ("class trace", "if self.nesterov", "if not self.nesterov"),
        ("class trace", "TraceState(v)", "state"),
        ("class trace", "zeros_like(params, self.accumulator_dtype)", "zeros_like(params)"),
        ("def ema_rule", "(1 - decay) * u", "u"),
        ("def ema_rule", "return m, m", "return u, m"),
        ("def debiased", "decay * m + (1 - decay)", "(1 - decay) * m + decay"),
        ("def debiased", "m / bias_correction(decay, t), m", "m, m"),
        ("def debiased", "(decay, t), m", "(decay, t), m / bias_correction(decay, t)"),
        ("def debiased", "(decay, t)", "(decay, t + 1)"),
        ("class ema", "static(default=True)", "static(default=False)"),
        ("class ema", "if self.debias", "if not self.debias"),
        ("class ema", "EmaState(t, m)", "EmaState(state.count, m)"),
        ("class ema", "EmaState(t, m)", "EmaState(t, state.ema)"),
        ("class ema", "zeros_like(params, self.accumulator_dtype)", "zeros_like(params)"),
    ],
    "schedules/polynomial": [
        ("class constant", "as_float(self.value)", "-as_float(self.value)"),
        ("class polynomial", "left**self.power", "left"),
        ("class polynomial", "(self.init_value - self", "(self.init_value + self"),
        ("class polynomial", "+ self.end_value\n", "\n"),
        ("class polynomial", "jnp.where(left < 1, value, self.init_value)", "value"),
        ("class linear", "self.end_value, 1.0,", "self.end_value, 2.0,"),
        ("class linear", ", self.transition_begin\n", "\n"),
        ("def remaining", "begin + steps -", "steps -"),
        ("def remaining", ", 0, steps)", ", 0, steps + 1)"),
        ("def remaining", ", 0, steps)", ", -9, steps)"),
        ("def remaining", "jnp.asarray(count) < begin", "jnp.asarray(count) <= begin"),
        ("def remaining", "jnp.asarray(steps) > 0", "jnp.asarray(steps) > 1"),
        ("def remaining", "begin + steps - jnp.asarray(count), 0",
         "begin + steps - as_float(count), 0"),
    ],
    "schedules/exponential": [
        ("def __call__", " - self.transition_begin", ""),
        ("def __call__", "self.transition_begin, 0)", "self.transition_begin, -5)"),
        ("def __call__", " / as_float(self.transition_steps)", ""),
        ("def __call__", "if self.staircase", "if not self.staircase"),
        ("def __call__", "jnp.floor", "jnp.ceil"),
        ("def __call__", "self.decay_rate) ** power", "self.decay_rate) * power"),
        ("def __call__", "jnp.asarray(self.decay_rate) < 1", "jnp.asarray(self.decay_rate) > 1"),
        ("def __call__", "if self.end_value is not None", "if False"),
    ],
    "schedules/cosine": [
        ("def __call__", "1 - remaining", "remaining"),
        ("def __call__", "0.5 * (1 + jnp", "0.5 * (1 - jnp"),
        ("def __call__", "jnp.pi * done", "2 * jnp.pi * done"),
        ("def __call__", "**self.exponent", ""),
        ("def __call__", "(1 - self.alpha) *", "1 *"),
        ("def __call__", "+ self.alpha)", ")"),
        ("class cosine", "alpha: Hyper = hyper(default=0.0)", "alpha: Hyper = hyper(default=0.1)"),
    ],
    "schedules/join": [
        ("def __call__", "count - boundary, 0", "count, 0"),
        ("def __call__", "count < boundary", "count <= boundary"),
        ("def __call__", "jnp.maximum(count - boundary, 0)", "count - boundary"),
        ("def validate", "len(self.schedules) - 1:", "len(self.boundaries):"),
    ],
    "schedules/piecewise": [
        ("class piecewise_constant", "count < boundary", "count <= boundary"),
        ("class piecewise_constant", "value * factor", "self.init_value * factor"),
        ("class piecewise_interpolate", "start * factor", "self.init_value * factor"),
        ("class piecewise_interpolate", "count - begin, 0, boundary - begin", "count, 0, boundary"),
        ("class piecewise_interpolate", "if self.interpolate_type == \"cosine\"", "if False"),
        ("class piecewise_interpolate", "** 2", "** 3"),
        ("class piecewise_interpolate", "(end - start) * done", "(start - end) * done"),
        ("class piecewise_interpolate", "jnp.where(count < boundary, value, end)", "value"),
        ("class piecewise_interpolate", "start, begin = end, boundary", "start = end"),
        ("class piecewise_interpolate", "sorted((self", "((self"),
        ("class piecewise_interpolate", "max(boundary - begin, 1)", "(boundary - begin)"),
    ],
    "schedules/warmup": [
        ("class warmup_constant", "linear_schedule(self.init_value, self.peak_value",
         "linear_schedule(self.peak_value, self.init_value"),
        ("class warmup_cosine", "self.decay_steps - self.warmup_steps", "self.decay_steps"),
        ("class warmup_cosine", "alpha, self.exponent", "alpha, 1.0"),
        ("class warmup_cosine", "alpha, self.exponent", "self.end_value, self.exponent"),
        ("class warmup_cosine", "[self.warmup_steps])", "[self.warmup_steps + 1])"),
        ("class warmup_cosine", "jnp.where(zero, 1.0, self.peak_value)", "self.peak_value"),
        ("class warmup_exponential", "            self.transition_begin,\n", "            0,\n"),
        ("class warmup_exponential", "            self.staircase,\n", "            False,\n"),
        ("class warmup_exponential", "            self.end_value,\n", "            None,\n"),
        ("class warmup_exponential", "[self.warmup_steps])", "[self.warmup_steps + 1])"),
        ("class warmup_exponential", "self.peak_value,\n", "self.init_value,\n"),
    ],
}  # fmt: skip


def snapshot(place):
    for part in ("gradtx", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "lab")
        shutil.copytree(ROOT / part, place / part, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", place)


def mutated(text, name, begin, old, new):
    start = text.find(begin)
    at = text.find(old, start)
    if start < 0 or at < 0:
        raise LookupError(f"{name}: no {old!r} after {begin!r}")
    return text[:at] + new + text[at + len(old) :]


def killed(original, name, *mutant):
    """Whether the mirrored tests fail on the mutant; an error that is no test failure raises."""
    folder, module = name.split("/")
    with tempfile.TemporaryDirectory() as place:
        copy = pathlib.Path(place) / "copy"
        shutil.copytree(original, copy)
        source = copy / "gradtx" / f"{name}.py"
        if mutant:
            source.write_text(mutated(source.read_text(), name, *mutant))
        tests = f"tests/{folder}/test_{module}.py"
        command = [sys.executable, "-m", "pytest", tests, "-x", "-q", "-p", "no:cacheprovider"]
        result = subprocess.run(command, cwd=copy, capture_output=True, text=True)
        if result.returncode not in (0, 1):
            raise RuntimeError(f"{name}: {mutant}\n{result.stdout}{result.stderr}")
        return result.returncode == 1


def main(words):
    chosen = [
        (name, *mutant)
        for name, mutants in MUTANTS.items()
        if not words or name.split("/")[1] in words
        for mutant in mutants
    ]
    for name, *mutant in chosen:
        mutated((ROOT / "gradtx" / f"{name}.py").read_text(), name, *mutant)
    survived = 0
    with (
        tempfile.TemporaryDirectory() as place,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        original = pathlib.Path(place)
        snapshot(original)
        names = dict.fromkeys(name for name, *_ in chosen)
        for name, red in zip(names, pool.map(lambda n: killed(original, n), names), strict=True):
            if red:
                raise RuntimeError(f"the tests of {name} fail without a mutant")
        results = pool.map(lambda mutant: killed(original, *mutant), chosen)
        for (name, begin, old, new), dead in zip(chosen, results, strict=True):
            survived += not dead
            verdict = "killed  " if dead else "SURVIVED"
            print(f"{verdict} {name} {begin}: {old!r} -> {new!r}", flush=True)
    print(f"{len(chosen)} mutants, {survived} survived")
    return survived > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
