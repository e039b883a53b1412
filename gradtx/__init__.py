"""gradtx: functional gradient transformations for JAX.

tx = gradtx.adam(1e-3)
state = tx.init(params)
params, state = tx.step(grads, state, params)
"""

from gradtx import tree as tree
from gradtx.core.apply import apply_updates, incremental_update, periodic_update
from gradtx.core.compose import chain, named_chain
from gradtx.core.gradient import scale_gradient
from gradtx.core.hyper import ScalarOrSchedule, Schedule
from gradtx.core.leaf import map_leaves
from gradtx.core.map_params import map_params as tree_map_params
from gradtx.core.numerics import (
    global_norm,
    safe_increment,
    safe_int32_increment,
    safe_norm,
    safe_root_mean_squares,
)
from gradtx.core.partition import PartitionState, groups, multi_transform, partition
from gradtx.core.select import MaskedNode, MaskedState, MaskOrFn, masked
from gradtx.core.slot import OptState, Params, Updates, know_states
from gradtx.core.transformation import (
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    TransformInitFn,
    TransformUpdateExtraArgsFn,
    TransformUpdateFn,
    init_empty_state,
    with_extra_args_support,
)
from gradtx.inspect.compile_report import CompileReport, CompileReports, compile_report
from gradtx.inspect.describe import Description, describe
from gradtx.inspect.size import state_bytes
from gradtx.linesearch.backtracking import (
    BacktrackingLinesearchInfo,
    ScaleByBacktrackingLinesearchState,
    scale_by_backtracking_linesearch,
)
from gradtx.linesearch.common import value_and_grad_from_state
from gradtx.linesearch.zoom import (
    ScaleByZoomLinesearchState,
    ZoomLinesearchInfo,
    scale_by_zoom_linesearch,
)
from gradtx.memory.formats import FloatFormat, PowerFormat
from gradtx.memory.kahan import KahanState, kahan
from gradtx.memory.master import MasterWeightsState, master_weights
from gradtx.memory.offload import offload_state
from gradtx.memory.quantize import QuantizeState, quantize_state
from gradtx.memory.rounding import StochasticRoundingState, stochastic_rounding
from gradtx.memory.slot_dtypes import slot_dtypes
from gradtx.optimizers.adabelief import ScaleByBeliefState, adabelief, scale_by_belief
from gradtx.optimizers.adadelta import ScaleByAdaDeltaState, adadelta, scale_by_adadelta
from gradtx.optimizers.adafactor import FactoredState, adafactor, scale_by_factored_rms
from gradtx.optimizers.adagrad import ScaleByRssState, adagrad, scale_by_rss
from gradtx.optimizers.adam import ScaleByAdamState, adam, adamw, scale_by_adam
from gradtx.optimizers.adamax import adamax, adamaxw, scale_by_adamax
from gradtx.optimizers.adan import ScaleByAdanState, adan, scale_by_adan
from gradtx.optimizers.amsgrad import ScaleByAmsgradState, amsgrad, scale_by_amsgrad
from gradtx.optimizers.fromage import fromage
from gradtx.optimizers.lamb import lamb
from gradtx.optimizers.lars import lars
from gradtx.optimizers.lbfgs import ScaleByLBFGSState, lbfgs, scale_by_lbfgs
from gradtx.optimizers.ldog import (
    ScaleByDistanceOverGradientsState,
    scale_by_distance_over_gradients,
)
from gradtx.optimizers.lion import ScaleByLionState, lion, scale_by_lion
from gradtx.optimizers.momentum import classical_momentum
from gradtx.optimizers.nadam import ScaleByNadamState, nadam, nadamw, scale_by_nadam
from gradtx.optimizers.nesterov import lookahead_trace, nesterov_momentum
from gradtx.optimizers.noisy_sgd import noisy_sgd
from gradtx.optimizers.novograd import ScaleByNovogradState, novograd, scale_by_novograd
from gradtx.optimizers.optimistic import (
    ScaleByOptimisticGradientState,
    optimistic_adam,
    optimistic_adam_v2,
    optimistic_gradient_descent,
    scale_by_optimistic_gradient,
)
from gradtx.optimizers.polyak import polyak_sgd, scale_by_polyak
from gradtx.optimizers.radam import radam, scale_by_radam
from gradtx.optimizers.rmsprop import (
    ScaleByRmsState,
    ScaleByRmsWithCountState,
    ScaleByRStdDevState,
    ScaleByRStdDevWithCountState,
    rmsprop,
    scale_by_rms,
    scale_by_stddev,
)
from gradtx.optimizers.rprop import ScaleByRpropState, rprop, scale_by_rprop
from gradtx.optimizers.sgd import sgd
from gradtx.optimizers.sign_sgd import scale_by_sign, sign_sgd, signum
from gradtx.optimizers.sm3 import ScaleBySM3State, scale_by_sm3, sm3
from gradtx.optimizers.yogi import scale_by_yogi, yogi
from gradtx.schedules.cosine import cosine_decay_schedule
from gradtx.schedules.exponential import exponential_decay
from gradtx.schedules.inverse_sqrt import inverse_sqrt_schedule
from gradtx.schedules.join import join_schedules
from gradtx.schedules.onecycle import cosine_onecycle_schedule, linear_onecycle_schedule
from gradtx.schedules.piecewise import piecewise_constant_schedule, piecewise_interpolate_schedule
from gradtx.schedules.polynomial import constant_schedule, linear_schedule, polynomial_schedule
from gradtx.schedules.restarts import sgdr_schedule
from gradtx.schedules.stable import warmup_stable_decay_schedule
from gradtx.schedules.warmup import (
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
    warmup_linear_decay_schedule,
)
from gradtx.solve.minimize import MinimizeResult, Status, minimize
from gradtx.transforms.clip import (
    AdaptiveGradClipState,
    ClipByGlobalNormState,
    ClipState,
    adaptive_grad_clip,
    clip,
    clip_by_block_rms,
    clip_by_global_norm,
    per_example_global_norm_clip,
    per_example_layer_norm_clip,
    unitwise_clip,
    unitwise_norm,
)
from gradtx.transforms.constrain import (
    NonNegativeParamsState,
    ZeroNansState,
    keep_params_nonnegative,
    zero_nans,
)
from gradtx.transforms.decay import (
    AddDecayedWeightsState,
    WeightDecaySchedule,
    add_decayed_weights,
    matrices,
)
from gradtx.transforms.noise import AddNoiseState, add_noise
from gradtx.transforms.scale import (
    ScaleByScheduleState,
    ScaleState,
    scale,
    scale_by_learning_rate,
    scale_by_schedule,
)
from gradtx.transforms.stateless import identity, set_to_zero, stateless, stateless_with_tree_map
from gradtx.transforms.trace import EmaState, TraceState, ema, trace
from gradtx.transforms.trust import (
    ScaleByTrustRatioState,
    centralize,
    normalize_by_update_norm,
    scale_by_param_block_norm,
    scale_by_param_block_rms,
    scale_by_trust_ratio,
)
from gradtx.tree import (
    bias_correction,
    update_infinity_moment,
    update_moment,
    update_moment_per_elem_norm,
)
from gradtx.wrappers.accumulate import (
    AccumulateState,
    MultiSteps,
    MultiStepsState,
    ShouldSkipUpdateFunction,
    accumulate,
    skip_large_updates,
    skip_not_finite,
)
from gradtx.wrappers.average import EmaParamsState, ema_params, eval_params
from gradtx.wrappers.conditional import (
    ApplyEvery,
    ConditionallyMaskState,
    ConditionallyTransformState,
    ConditionFn,
    apply_every,
    conditionally_mask,
    conditionally_transform,
)
from gradtx.wrappers.flatten import FlattenState, flatten
from gradtx.wrappers.freeze import freeze, selective_transform
from gradtx.wrappers.inject import (
    InjectStatefulHyperparamsState,
    StatefulSchedule,
    WrappedSchedule,
    hyperparams,
    inject_hyperparams,
    inject_stateful_hyperparams,
    set_hyperparams,
)
from gradtx.wrappers.lookahead import LookaheadParams, LookaheadState, lookahead
from gradtx.wrappers.monitor import (
    MonitorState,
    SnapshotState,
    measure_with_ema,
    monitor,
    snapshot,
)
from gradtx.wrappers.skip import (
    ApplyIfFiniteState,
    SkipNonfiniteState,
    apply_if_finite,
    skip_nonfinite,
)

# Optax's earlier names.
InjectHyperparamsState = InjectStatefulHyperparamsState
MultiTransformState = PartitionState

__version__ = "0.1.0"

know_states(tuple(globals().values()))

__all__ = [
    "GradientTransformation",
    "GradientTransformationExtraArgs",
    "EmptyState",
    "apply_updates",
    "incremental_update",
    "periodic_update",
    "chain",
    "named_chain",
    "masked",
    "MaskedState",
    "MaskedNode",
    "partition",
    "multi_transform",
    "groups",
    "PartitionState",
    "MultiTransformState",
    "freeze",
    "selective_transform",
    "describe",
    "Description",
    "state_bytes",
    "compile_report",
    "CompileReport",
    "CompileReports",
    "hyperparams",
    "set_hyperparams",
    "inject_hyperparams",
    "inject_stateful_hyperparams",
    "InjectStatefulHyperparamsState",
    "InjectHyperparamsState",
    "StatefulSchedule",
    "WrappedSchedule",
    "with_extra_args_support",
    "map_leaves",
    "sgd",
    "classical_momentum",
    "nesterov_momentum",
    "adagrad",
    "rmsprop",
    "adam",
    "adamw",
    "nadam",
    "nadamw",
    "adamax",
    "adamaxw",
    "amsgrad",
    "adabelief",
    "adadelta",
    "adafactor",
    "adan",
    "fromage",
    "lamb",
    "lars",
    "lbfgs",
    "lion",
    "noisy_sgd",
    "novograd",
    "optimistic_adam",
    "optimistic_adam_v2",
    "optimistic_gradient_descent",
    "polyak_sgd",
    "radam",
    "rprop",
    "sign_sgd",
    "signum",
    "sm3",
    "yogi",
    "identity",
    "stateless",
    "stateless_with_tree_map",
    "set_to_zero",
    "scale",
    "scale_by_schedule",
    "ScaleByScheduleState",
    "scale_by_learning_rate",
    "add_decayed_weights",
    "WeightDecaySchedule",
    "matrices",
    "clip",
    "clip_by_global_norm",
    "trace",
    "lookahead_trace",
    "TraceState",
    "ema",
    "EmaState",
    "scale_by_rss",
    "ScaleByRssState",
    "scale_by_rms",
    "ScaleByRmsState",
    "ScaleByRmsWithCountState",
    "scale_by_stddev",
    "ScaleByRStdDevState",
    "ScaleByRStdDevWithCountState",
    "scale_by_adam",
    "ScaleByAdamState",
    "scale_by_nadam",
    "ScaleByNadamState",
    "scale_by_adamax",
    "scale_by_amsgrad",
    "ScaleByAmsgradState",
    "ScaleByBeliefState",
    "scale_by_belief",
    "ScaleByAdaDeltaState",
    "scale_by_adadelta",
    "FactoredState",
    "scale_by_factored_rms",
    "ScaleByAdanState",
    "scale_by_adan",
    "ScaleByLBFGSState",
    "scale_by_lbfgs",
    "ScaleByLionState",
    "scale_by_lion",
    "ScaleByNovogradState",
    "scale_by_novograd",
    "ScaleByOptimisticGradientState",
    "scale_by_optimistic_gradient",
    "scale_by_distance_over_gradients",
    "ScaleByDistanceOverGradientsState",
    "scale_by_polyak",
    "scale_by_radam",
    "ScaleByRpropState",
    "scale_by_rprop",
    "scale_by_sign",
    "ScaleBySM3State",
    "scale_by_sm3",
    "scale_by_yogi",
    "NonNegativeParamsState",
    "ZeroNansState",
    "keep_params_nonnegative",
    "zero_nans",
    "AddNoiseState",
    "add_noise",
    "centralize",
    "normalize_by_update_norm",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
    "scale_by_trust_ratio",
    "clip_by_block_rms",
    "adaptive_grad_clip",
    "unitwise_norm",
    "unitwise_clip",
    "per_example_global_norm_clip",
    "per_example_layer_norm_clip",
    "lookahead",
    "LookaheadParams",
    "LookaheadState",
    "ema_params",
    "EmaParamsState",
    "eval_params",
    "flatten",
    "FlattenState",
    "snapshot",
    "SnapshotState",
    "monitor",
    "MonitorState",
    "measure_with_ema",
    "scale_by_backtracking_linesearch",
    "ScaleByBacktrackingLinesearchState",
    "BacktrackingLinesearchInfo",
    "scale_by_zoom_linesearch",
    "ScaleByZoomLinesearchState",
    "ZoomLinesearchInfo",
    "value_and_grad_from_state",
    "minimize",
    "MinimizeResult",
    "Status",
    "accumulate",
    "AccumulateState",
    "MultiSteps",
    "MultiStepsState",
    "ShouldSkipUpdateFunction",
    "skip_not_finite",
    "skip_large_updates",
    "skip_nonfinite",
    "SkipNonfiniteState",
    "apply_if_finite",
    "ApplyIfFiniteState",
    "quantize_state",
    "QuantizeState",
    "PowerFormat",
    "FloatFormat",
    "conditionally_mask",
    "ConditionallyMaskState",
    "ConditionFn",
    "conditionally_transform",
    "ConditionallyTransformState",
    "apply_every",
    "ApplyEvery",
    "stochastic_rounding",
    "StochasticRoundingState",
    "kahan",
    "KahanState",
    "master_weights",
    "MasterWeightsState",
    "slot_dtypes",
    "offload_state",
    "Schedule",
    "constant_schedule",
    "linear_schedule",
    "polynomial_schedule",
    "exponential_decay",
    "cosine_decay_schedule",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "join_schedules",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
    "warmup_linear_decay_schedule",
    "warmup_stable_decay_schedule",
    "inverse_sqrt_schedule",
    "linear_onecycle_schedule",
    "cosine_onecycle_schedule",
    "sgdr_schedule",
    "global_norm",
    "safe_increment",
    "safe_int32_increment",
    "safe_norm",
    "safe_root_mean_squares",
    "scale_gradient",
    "bias_correction",
    "update_moment",
    "update_moment_per_elem_norm",
    "update_infinity_moment",
    "tree_map_params",
    "init_empty_state",
    "ScaleState",
    "ClipState",
    "ClipByGlobalNormState",
    "AdaptiveGradClipState",
    "AddDecayedWeightsState",
    "ScaleByTrustRatioState",
    "Params",
    "Updates",
    "OptState",
    "MaskOrFn",
    "ScalarOrSchedule",
    "TransformInitFn",
    "TransformUpdateFn",
    "TransformUpdateExtraArgsFn",
]
