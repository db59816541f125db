"""Which tensors of a model have a range of their own, which share one, and who watches it.

TFLite's ops decide: a concatenation, a maximum pooling or a reshape has one scale before and behind. Tensors tied so
form a group, which trains one range; otherwise the converter would have to requantize between them.
"""

import dataclasses
from typing import Any

import tf_keras

from components.quantization.qat import rules, weight_quantization
from components.quantization.qat.rules import Rule
from components.quantization.schemes import QuantizationScheme
from components.quantization.surgery.affine import ChannelAffine
from components.quantization.surgery.graph import Call, calls, consumers


@dataclasses.dataclass(kw_only=True, slots=True)
class Group:
    """Tensors that share a range.

    Attributes:
      name: Name of the layer that made its first tensor.
      fixed: The range, where a kernel prescribes it.
      watched: Ids of the tensors whose values make up the range; empty for a fixed one.
    """

    name: str
    fixed: tuple[float, float] | None = None
    watched: set[int] = dataclasses.field(default_factory=set)


_LEFT_OUT = Rule(kind="calibrate", reason="left out of training by the scheme: its ranges are calibrated")


class Ranges:
    """The analysis of one model.

    Attributes:
      calls: Its calls, in order.
      rules: The rule of each call.
      folds: For the index of each weighted call, the index of the normalization behind it that is folded into it.
      preprocessing: Likewise for the affine call before it, on an input of the model.
      fused: Indices of calls whose output has no range, since what follows is fused into them.
      wide: Indices of calls that compute from 16-bit inputs to 16-bit outputs in a model of 8 bits.
    """

    def __init__(self, model: tf_keras.Model, scheme: QuantizationScheme) -> None:
        """Analyses a prepared model; layers that the scheme leaves out are left to the converter's calibration."""
        self.calls = list(calls(model))
        self._consumers = consumers(model)
        self._outputs = {id(tensor) for tensor in model.outputs}
        self._shown = set(self._outputs)
        self._index = {id(call.outputs[0]): index for index, call in enumerate(self.calls)}
        scheme.require_all_matched(call.layer.name for call in self.calls)
        self.rules = [_LEFT_OUT if self._is_left_out(call, scheme) else rules.rule_of(call) for call in self.calls]
        self.folds = self._find_folds()
        self.preprocessing = self._find_preprocessing({id(tensor) for tensor in model.inputs})
        self.fused = self._find_fused()
        self.wide = self._find_wide(scheme)
        self._wide_tensors = self._find_wide_tensors(model)
        self._pass_wide_tensors_on()
        for index, call in reversed(list(enumerate(self.calls))):
            if self._passes(index) and id(call.outputs[0]) in self._shown and self._only_consumer_of(call.inputs[0]):
                self._shown.add(id(call.inputs[0]))
        self._groups: dict[int, Group] = {}
        for tensor in model.inputs:
            if tensor.dtype.is_floating and not self._is_index(tensor) and not self._is_calibrated(tensor):
                self._new_group(tensor, tensor.node.layer.name)
        for index, call in enumerate(self.calls):
            self._assign(index, call)

    def _is_left_out(self, call: Call, scheme: QuantizationScheme) -> bool:
        """Whether the scheme leaves a call out of training, or the layer that the converter folds it into."""
        if scheme.weight_bits_of(call.layer.name) is None:
            return True
        maker = self._index.get(id(call.inputs[0])) if rules.rule_of(call).kind == "affine" else None
        if maker is None or self._only_consumer(maker) is None or rules.rule_of(self.calls[maker]).kind != "weights":
            return False
        return scheme.weight_bits_of(self.calls[maker].layer.name) is None

    def group(self, tensor: Any) -> Group | None:
        """The group of a tensor; None if it has no range: an index, or one that is fused or calibrated."""
        return self._groups.get(id(tensor))

    def is_nonnegative(self, group: Group) -> bool:
        """Whether all values that make up a range come out of a ReLU."""
        makers = [self._index.get(tensor) for tensor in group.watched]
        return bool(makers) and all(index is not None and rules.is_relu(self.calls[index]) for index in makers)

    def is_shown(self, tensor: Any) -> bool:
        """Whether a tensor is an output of the model, but for its shape."""
        return id(tensor) in self._shown

    def _passes(self, index: int) -> bool:
        """Whether a call leaves its values as they are and where they are."""
        return self.rules[index].kind == "nothing" or rules.is_reshape(self.calls[index])

    def _only_consumer_of(self, tensor: Any) -> bool:
        return len(self._consumers.get(id(tensor), [])) == 1

    def is_wide(self, tensor: Any) -> bool:
        """Whether a tensor has 16 bits in a model of 8."""
        return id(tensor) in self._wide_tensors

    def folded_into(self, index: int) -> int | None:
        """The index of the weighted call that the normalization at an index is folded into, or None."""
        pairs = (*self.folds.items(), *self.preprocessing.items())
        return next((weighted for weighted, folded in pairs if folded == index), None)

    def _only_consumer(self, index: int) -> int | None:
        """Index of the one call that takes the one output of a call, if nothing else does."""
        call = self.calls[index]
        if len(call.outputs) != 1 or id(call.outputs[0]) in self._outputs:
            return None
        users = self._consumers.get(id(call.outputs[0]), [])
        return self._index[id(users[0].outputs[0])] if len(users) == 1 else None

    def _find_folds(self) -> dict[int, int]:
        """Pairs each weighted layer with the normalization that alone follows it, in all of its calls."""
        found = {}
        for index, rule in enumerate(self.rules):
            follower = self._only_consumer(index)
            foldable = rule.kind == "weights" and not isinstance(self.calls[index].layer, tf_keras.layers.PReLU)
            if foldable and follower is not None and self.rules[follower].kind == "affine":
                found[index] = follower

        def consistent(index: int, follower: int) -> bool:
            first, second = self.calls[index].layer, self.calls[follower].layer
            pairs = [(i, found.get(i)) for i, call in enumerate(self.calls) if call.layer is first]
            uses = [i for i, call in enumerate(self.calls) if call.layer is second]
            return sorted(uses) == sorted(-1 if f is None else f for _, f in pairs)

        return {index: follower for index, follower in found.items() if consistent(index, follower)}

    def _find_preprocessing(self, inputs: set[int]) -> dict[int, int]:
        """Pairs a weighted layer with a constant gain and offset, alone between it and an input of the model."""
        found = {}
        for index, call in enumerate(self.calls):
            weighted = self._only_consumer(index)
            if weighted is None or self.rules[weighted].kind != "weights" or id(call.inputs[0]) not in inputs:
                continue
            constant = isinstance(call.layer, ChannelAffine) and not call.layer.trainable
            once = all(sum(c.layer is self.calls[i].layer for c in self.calls) == 1 for i in (index, weighted))
            if self.rules[index].kind == "affine" and constant and once:
                gain, offset = call.layer.get_weights()
                if weight_quantization.takes_affine(self.calls[weighted].layer, gain, offset):
                    found[weighted] = index
        return found

    def _find_fused(self) -> set[int]:
        """Calls whose output is only an intermediate value of one integer op."""
        fused = {*self.folds, *self.preprocessing.values()}
        for index, call in enumerate(self.calls):
            follower = self._only_consumer(index)
            head = self.folded_into(index)
            takes = rules.takes_relu(self.calls[index if head is None else head])
            if follower is not None and takes and rules.is_relu(self.calls[follower]):
                fused.add(index)
            if self.rules[index].kind == "calibrate" and not call.outputs[0].dtype.is_floating:
                fused.add(index)
        return fused

    def _find_wide(self, scheme: QuantizationScheme) -> set[int]:
        def applies(index: int) -> bool:
            asked = scheme.activation_bits_of(self.calls[index].layer.name) > scheme.activation_bits
            kernel = rules.has_wide_kernel(self.calls[index], self.rules[index])
            return asked and kernel and self.folded_into(index) is None

        wide = {index for index in range(len(self.calls)) if applies(index)}
        if not wide and 16 in scheme.all_activation_bits and scheme.activation_bits == 8:
            raise ValueError(
                f"scheme {scheme.name!r}: the overrides with 'int16_activations' name no convolution, Dense, softmax,"
                " sigmoid or tanh; no other op has a kernel that mixes with 8 bits"
            )
        return wide

    def _find_wide_tensors(self, model: tf_keras.Model) -> set[int]:
        found = set()
        for index in self.wide:
            last = index
            while last in self.fused:
                following = self._only_consumer(last)
                if following is None:
                    break
                last = following
            found |= {id(tensor) for tensor in self.calls[last].outputs}
        for tensor in model.inputs:
            users = [self._index[id(call.outputs[0])] for call in self._consumers.get(id(tensor), [])]
            hosts = [index if self.folded_into(index) is None else self.folded_into(index) for index in users]
            if hosts and all(host in self.wide for host in hosts):
                found.add(id(tensor))
        return found

    def _pass_wide_tensors_on(self) -> None:
        """Lets values of 16 bits through where an op gives its tensor another shape, or there is no op at all."""
        for index, call in enumerate(self.calls):
            if self._passes(index) and all(self.is_wide(tensor) for tensor in call.inputs):
                self.wide.add(index)
                self._wide_tensors |= {id(tensor) for tensor in call.outputs}

    def _is_index(self, tensor: Any) -> bool:
        users = self._consumers.get(id(tensor), [])
        return bool(users) and all(isinstance(call.layer, tf_keras.layers.Embedding) for call in users)

    def _is_calibrated(self, tensor: Any) -> bool:
        """Whether all that take a tensor are left to the converter: its range comes with theirs."""
        users = [self.rules[self._index[id(call.outputs[0])]] for call in self._consumers.get(id(tensor), [])]
        return bool(users) and all(rule.kind == "calibrate" for rule in users)

    def _new_group(self, tensor: Any, name: str, fixed: tuple[float, float] | None = None) -> Group:
        group = Group(name=name, fixed=fixed, watched=set() if fixed else {id(tensor)})
        self._groups[id(tensor)] = group
        return group

    def _assign(self, index: int, call: Call) -> None:
        rule = self.rules[index]
        if index in self.fused or rule.kind in ("calibrate", "float"):
            return
        if rule.kind in ("same", "rounded", "nothing"):
            self._share(index, call, rule)
            return
        for tensor in call.outputs:
            self._new_group(tensor, call.layer.name, rule.fixed)

    def _share(self, index: int, call: Call, rule: Rule) -> None:
        """Ties the outputs of a call to its inputs."""
        groups = [self.group(tensor) for tensor in call.inputs]
        known = [group for group in groups if group is not None]
        if not known:
            return  # before and behind, the converter calibrates
        free = [group for group in known if group.fixed is None]
        if not free and all(group is not None and group.fixed == known[0].fixed for group in groups):
            for tensor in call.outputs:
                self._groups[id(tensor)] = known[0]
            return
        # Where a kernel prescribes another range, the converter requantizes behind it, for all uses of its output.
        shared = free[0] if free else Group(name=call.layer.name)
        for other in known:
            self._merge(other, shared)
        for tensor in call.outputs:
            self._groups[id(tensor)] = shared
        if rule.covers == "output" or None in groups:
            shared.watched -= {id(tensor) for tensor in call.inputs}
            shared.watched |= {id(tensor) for tensor in call.outputs}

    def _merge(self, group: Group, into: Group) -> None:
        if group is into:
            return
        tensors = {tensor for tensor, found in self._groups.items() if found is group}
        into.watched |= tensors if group.fixed else group.watched
        self._groups |= dict.fromkeys(tensors, into)
