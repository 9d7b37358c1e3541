"""Book-keeping: one forward, one backward, and every clipped sum follows (Bu et al. 2022, arXiv:2210.00038).

The forward notes what goes into each trained layer; the backward stops at what comes out of them, so that no gradient
of a weight is computed twice. From these two follow the norms, and then each sum, in one GEMM or so for each layer.

    engine = BookKeeping(model, loss, max_grad_norm=1.0)
    sums = Sums(engine.parameters)
    engine.clipped_sums(inputs, labels, Units.single(len(inputs)), sums)
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from edge_agent.training.clipping.contributions import Contribution, merged
from edge_agent.training.clipping.errors import UnclippableModelError, UnsupportedLayerError
from edge_agent.training.clipping.layers import Rule, refuse_unclippable
from edge_agent.training.clipping.opacus_layers import opacus_gradients, rule_of
from edge_agent.training.clipping.port import MeanLoss
from edge_agent.training.clipping.products import clip_factors
from edge_agent.training.clipping.sums import Sums
from edge_agent.training.clipping.units import Units


@dataclass(frozen=True)
class _Call:
    """One call of a trained layer: what went in, and where the gradient of what came out will pass."""

    name: str
    layer: nn.Module
    rule: Rule
    inputs: torch.Tensor
    version: int
    """Of the inputs: whoever changes them in place afterwards is found."""
    output: GradientEdge


class BookKeeping:
    """The engine for one model, until `close`.

    Args:
        model: In training mode; its parameters that require a gradient are trained.
        loss: The mean loss of a batch; examples' losses are independent of each other.
        max_grad_norm: What each unit's gradient is clipped to.

    Raises:
        UnclippableModelError: A layer mixes examples.
    """

    name = "book-keeping"

    def __init__(self, model: nn.Module, loss: MeanLoss, *, max_grad_norm: float) -> None:
        refuse_unclippable(model)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.notes: tuple[str, ...] = ()
        self._model, self._loss, self._max_grad_norm = model, loss, max_grad_norm
        self._calls: list[_Call] = []
        self._is_noting = self._is_checked = False
        self._hooks = [self._hook(name, layer) for name, layer in _trained_layers(model)]

    def clipped_sums(self, inputs: torch.Tensor, labels: torch.Tensor, units: Units, sums: Sums) -> None:
        if not units.sizes:
            sums.vector.zero_()
            return
        contributions = self._contributions(inputs, labels)
        squared = torch.stack([part.squared_norms(units) for part in contributions.values()]).sum(dim=0)
        weights = units.spread(clip_factors(squared, max_norm=self._max_grad_norm))
        for parameter in sums.parameters:
            if (part := contributions.get(parameter)) is None:
                sums.of(parameter).zero_()
            else:
                part.sum_into(sums.of(parameter), weights)

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def _contributions(self, inputs: torch.Tensor, labels: torch.Tensor) -> dict[torch.Tensor, Contribution]:
        parts: dict[torch.Tensor, list[Contribution]] = {}
        for call, gradient in self._forward_backward(inputs, labels):
            for parameter, part in call.rule(call.layer, call.inputs, gradient):
                if parameter.requires_grad:
                    parts.setdefault(parameter, []).append(part)
        return {parameter: merged(uses) for parameter, uses in parts.items()}

    def _forward_backward(self, inputs: torch.Tensor, labels: torch.Tensor) -> Iterator[tuple[_Call, torch.Tensor]]:
        """Each layer's calls with the gradient of their outputs, of the examples' losses (not of the mean)."""
        calls: list[_Call] = []
        self._calls = calls
        self._is_noting = True
        examples = inputs.shape[0]
        with torch.enable_grad():
            loss = self._loss(self._model(inputs), labels) * examples
        self._is_noting = False
        for call in calls:
            _check_call(call, examples=examples)
        if not self._is_checked:
            _check_uses(loss, calls, self._model)
            self._is_checked = True
        gradients = torch.autograd.grad(loss, [call.output for call in calls], allow_unused=True)
        for call, gradient in zip(calls, gradients, strict=True):
            if gradient is not None:
                yield call, gradient

    def _hook(self, name: str, layer: nn.Module) -> RemovableHandle:
        rule = rule_of(layer)
        if rule is opacus_gradients:
            self.notes += (f"Layer {name!r} ({type(layer).__name__}) by Opacus' per-sample gradients.",)

        def note(layer: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            # Whoever else calls the layer, an evaluation or Opacus on a copy of it, is not our forward.
            if self._is_noting:
                self._calls.append(_noted(name, layer, rule, inputs, output))

        return layer.register_forward_hook(note)


def _trained_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module that has trained parameters of its own, which are not its submodules' under another name."""
    for name, layer in model.named_modules():
        others = {parameter for child in layer.children() for parameter in child.parameters()}
        if any(p.requires_grad and p not in others for p in layer.parameters(recurse=False)):
            yield name, layer


def _noted(name: str, layer: nn.Module, rule: Rule, inputs: tuple[object, ...], output: object) -> _Call:
    match inputs:
        case (torch.Tensor() as given,) if isinstance(output, torch.Tensor):
            return _Call(name, layer, rule, given.detach(), given._version, get_gradient_edge(output))
    raise UnsupportedLayerError(
        f"Expected trained layers from one tensor to one tensor, got {type(layer).__name__} ({name!r}) with other ones",
        hint="Write the layer as a module of layers that are, or freeze its parameters.",
    )


def _check_call(call: _Call, *, examples: int) -> None:
    if call.inputs.shape[0] != examples or call.output.node is None:
        raise UnsupportedLayerError(
            f"Expected the batch's {examples} examples first in what enters layer {call.name!r}, "
            f"got the shape {tuple(call.inputs.shape)}",
            hint="Keep the batch dimension first, and examples apart.",
        )
    if call.inputs._version != call.version:
        raise UnsupportedLayerError(
            f"Expected what entered layer {call.name!r} to stay as it was, got it changed in place",
            hint="Use the operation that returns a new tensor.",
        )


def _check_uses(loss: torch.Tensor, calls: Sequence[_Call], model: nn.Module) -> None:
    """Every use of a trained parameter is one that a hook saw; otherwise a part of its gradient would be missing."""
    nodes, uses = _graph(loss)
    seen: Counter[torch.Tensor] = Counter()
    within: set[torch.Tensor] = set()
    for call in calls:
        if call.output.node in nodes:
            seen.update(call.layer.parameters(recurse=False))
            # A layer without a rule of ours may use a parameter several times; Opacus differentiates it whole.
            within.update(call.layer.parameters(recurse=False) if call.rule is opacus_gradients else ())
    for name, parameter in model.named_parameters():
        if uses[parameter] and (not seen[parameter] if parameter in within else seen[parameter] != uses[parameter]):
            raise UnclippableModelError(
                f"Expected parameter {name!r} to be used by its layer's forward alone, "
                f"got {uses[parameter]} uses and {seen[parameter]} calls of layers that own it",
                hint="Use the layer itself, where its parameters are used.",
            )


def _graph(loss: torch.Tensor) -> tuple[set[Node], Counter[torch.Tensor]]:
    """The nodes of the loss' graph, and how many edges lead to each parameter."""
    nodes: set[Node] = set()
    uses: Counter[torch.Tensor] = Counter()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in nodes:
            continue
        nodes.add(node)
        for following, _ in node.next_functions:
            if following is not None and hasattr(following, "variable"):
                uses[following.variable] += 1
            waiting.append(following)
    return nodes, uses
