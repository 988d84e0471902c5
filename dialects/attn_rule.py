"""
The pruning rule of an attention as an attribute: the part of the `attn` dialect that names rules.

What a rule is and which options it takes is `heatc.rules`' to say, and docs/design/rules.md's.
"""

from __future__ import annotations

from typing import Any, cast

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    Float64Type,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    f64,
    i1,
    i64,
)
from xdsl.ir import Attribute, ParametrizedAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

from heatc.rules import Rule, RuleError, make_rule


@irdl_attr_definition
class RuleAttr(ParametrizedAttribute):
    """
    `#attn.rule<"topk", {density = 2.500000e-01 : f64}>`: a pruning rule and options of it.

    Options are named as `heatc.rules.Rule` names them; those that are left out have the rule's
    defaults. Several values, such as one a head, are an array.
    """

    name = "attn.rule"
    rule_name: StringAttr
    options: DictionaryAttr

    @classmethod
    def of(cls, rule: Rule) -> RuleAttr:
        """The attribute of a rule, with all options that it takes."""
        options = {name: _attribute(value) for name, value in rule.options.items()}
        return cls(StringAttr(rule.name), DictionaryAttr(options))

    @property
    def rule(self) -> Rule:
        """The rule that it stands for; `RuleError` where there is no such rule."""
        options = {name: _value(name, value) for name, value in self.options.data.items()}
        return make_rule(self.rule_name.data, options)

    def verify(self) -> None:
        try:
            _ = self.rule
        except RuleError as error:
            raise VerifyException(str(error)) from error


def _attribute(value: Any) -> Attribute:
    """The attribute of an option's value; of a tuple that of its values."""
    if isinstance(value, str):
        return StringAttr(value)
    if isinstance(value, int):
        return IntegerAttr(value, i64)
    if isinstance(value, float):
        return FloatAttr(value, f64)
    values = cast("tuple[Any, ...]", value)
    if len(values) == 1:
        return _attribute(values[0])
    if isinstance(values[0], str):
        return ArrayAttr(map(StringAttr, values))
    return DenseArrayBase.from_list(f64 if isinstance(values[0], float) else i64, values)


def _value(option: str, attribute: Attribute) -> Any:
    """The value of an option; `RuleError` where an attribute is none."""
    if isa(attribute, StringAttr):
        return attribute.data
    if isa(attribute, IntegerAttr) and attribute.type != i1:
        return attribute.value.data
    if isa(attribute, FloatAttr):
        return attribute.value.data
    if isa(attribute, ArrayAttr[StringAttr]):
        return tuple(text.data for text in attribute.data)
    if isa(attribute, DenseArrayBase) and attribute.elt_type in (i64, f64):
        return tuple(cast("DenseArrayBase[Float64Type]", attribute).get_values())
    raise RuleError(option, f"option {option} is no number, text or array of them: {attribute}")
