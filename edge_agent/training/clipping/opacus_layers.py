"""Layers that have no rule of ours: Opacus' per-sample gradients, materialised, for this layer alone."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edge_agent.training.clipping.contributions import Rows
from edge_agent.training.clipping.layers import RULES, Contributions, Rule, frozen_batch_norm, linear


def rule_of(layer: nn.Module) -> Rule:
    """Ours where there is one; Opacus' recurrent cells are made of dense layers, used once for each step in time."""
    if (rule := RULES.get(type(layer))) is not None:
        return rule
    if isinstance(layer, _BatchNorm) and type(layer).forward is _BatchNorm.forward:  # whatever else keeps it frozen
        return frozen_batch_norm
    from opacus.layers.dp_rnn import RNNLinear  # longer to import than a small model trains: only where it is needed

    return linear if type(layer) is RNNLinear else opacus_gradients


def opacus_gradients(layer: nn.Module, inputs: torch.Tensor, gradient: torch.Tensor) -> Contributions:
    """By Opacus' own sampler for the layer's type where there is one, else by functorch."""
    from opacus.grad_sample import GradSampleModule
    from opacus.grad_sample.functorch import ft_compute_per_sample_gradient

    sampler = GradSampleModule.GRAD_SAMPLERS.get(type(layer), ft_compute_per_sample_gradient)
    for parameter, rows in sampler(layer, [inputs], gradient).items():
        yield parameter, Rows(rows)
