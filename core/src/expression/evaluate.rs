//! Evaluates nodes: recursion is bounded when they are compiled, the rest is paid for.

use std::rc::Rc;

use super::cost::{Budget, EvaluationError};
use super::input::Input;
use super::node::{Fold, Loop, Node, Variable};
use super::operators;
use super::record_input::RecordInput;
use super::value::{Key, Map, Repeats, Value};

/// What an expression is evaluated over.
#[derive(Clone, Copy)]
pub(super) enum Variables<'a, 'i> {
    Request(&'i Input<'a>),
    Record(&'i RecordInput<'a>),
}

/// One evaluation of one expression.
pub(super) struct Evaluation<'a, 'i> {
    variables: Variables<'a, 'i>,
    pub(super) budget: Budget,
    /// Values of the loops' variables, innermost last.
    locals: Vec<Value<'a>>,
}

impl<'a, 'i> Evaluation<'a, 'i> {
    pub(super) fn new(variables: Variables<'a, 'i>) -> Self {
        Self { variables, budget: Budget::full(), locals: Vec::new() }
    }

    pub(super) fn value(&mut self, node: &'a Node) -> Result<Value<'a>, EvaluationError> {
        self.budget.pay(1)?;
        match node {
            Node::Literal(literal) => Ok(literal.value()),
            Node::Variable(variable) => self.variable(*variable),
            Node::Local(at) => {
                let local = self.locals.iter().rev().nth(*at);
                local.cloned().ok_or_else(|| EvaluationError::new("a variable has no value"))
            }
            Node::Select(operand, field) => operators::select(&self.value(operand)?, field),
            Node::Has(operand, field) => match self.value(operand)? {
                Value::Map(map) => Ok(Value::Bool(map.field(field).is_some())),
                other => {
                    Err(EvaluationError::new(format!("`has` is not for {}", other.type_name())))
                }
            },
            Node::And(sides) => self.logical(sides, false),
            Node::Or(sides) => self.logical(sides, true),
            Node::Conditional(parts) => {
                let (condition, yes, no) = &**parts;
                let holds = bool(&self.value(condition)?, "?:")?;
                self.value(if holds { yes } else { no })
            }
            Node::List(items) => {
                let items: Result<Vec<_>, _> = items.iter().map(|item| self.value(item)).collect();
                Ok(Value::list(items?))
            }
            Node::Map(entries) => self.map(entries),
            Node::Loop(a_loop) => self.run(a_loop),
            Node::Matches(text, pattern) => {
                let text = self.value(text)?;
                pattern.fits(&text, &mut self.budget)
            }
            Node::Call(function, arguments) => {
                let arguments: Result<Vec<_>, _> =
                    arguments.iter().map(|argument| self.value(argument)).collect();
                function.call(&arguments?, &mut self.budget)
            }
        }
    }

    fn variable(&mut self, variable: Variable) -> Result<Value<'a>, EvaluationError> {
        match (variable, self.variables) {
            (Variable::Request(None), Variables::Request(input)) => input.request(&mut self.budget),
            (Variable::Request(Some(field)), Variables::Request(input)) => {
                input.field(field, &mut self.budget)
            }
            (Variable::Source, Variables::Request(input)) => input.source(),
            (Variable::Address, Variables::Request(input)) => Ok(input.address()),
            (Variable::Message, Variables::Request(input)) => input.message(),
            (Variable::Record(part), Variables::Record(record)) => {
                record.part(part, &mut self.budget)
            }
            // Compiled over other names than it is evaluated over.
            _ => Err(EvaluationError::new("a variable has no value")),
        }
    }

    /// `&&` and `||`: a side that decides does so whatever the other is, a fault included.
    fn logical(
        &mut self,
        sides: &'a (Node, Node),
        deciding: bool,
    ) -> Result<Value<'a>, EvaluationError> {
        let mut fault = None;
        for side in [&sides.0, &sides.1] {
            match self.value(side).and_then(|value| bool(&value, "&& and ||")) {
                Ok(value) if value == deciding => return Ok(Value::Bool(deciding)),
                Ok(_) => {}
                Err(EvaluationError::Exhausted) => return Err(EvaluationError::Exhausted),
                Err(failed) => fault = fault.or(Some(failed)),
            }
        }
        fault.map_or(Ok(Value::Bool(!deciding)), Err)
    }

    fn map(&mut self, nodes: &'a [(Node, Node)]) -> Result<Value<'a>, EvaluationError> {
        let mut entries = Vec::with_capacity(nodes.len());
        for (key, value) in nodes {
            let key = self.value(key)?;
            let key = Key::of(&key).ok_or_else(|| {
                EvaluationError::new(format!("a {} cannot be a key", key.type_name()))
            })?;
            // Sorting compares each key with some others.
            if let Key::String(name) = &key {
                self.budget.pay_bytes(name.len().saturating_mul(12))?;
            }
            entries.push((key, self.value(value)?));
        }
        let map = Map::new(entries, Repeats::EvaluationError);
        map.map(|map| Value::Map(Rc::new(map)))
            .map_err(|_| EvaluationError::new("a key is there twice"))
    }

    fn run(&mut self, a_loop: &'a Loop) -> Result<Value<'a>, EvaluationError> {
        let range = self.value(&a_loop.range)?;
        let mut state = Looped { items: Vec::new(), count: 0, fault: None };
        let mut ended = None;
        let length = match &range {
            Value::List(items) => items.len(),
            Value::Map(map) => map.entries().len(),
            other => {
                return Err(EvaluationError::new(format!(
                    "a {} has no elements",
                    other.type_name()
                )));
            }
        };
        for at in 0..length {
            let element = match &range {
                Value::List(items) => items.get(at).cloned(),
                Value::Map(map) => map.entries().get(at).map(|(key, _)| key.value()),
                _ => None,
            };
            let Some(element) = element else { break };
            self.budget.pay(1)?;
            self.locals.push(element);
            let step = self.step(&a_loop.step, &mut state);
            self.locals.pop();
            ended = step?;
            if ended.is_some() {
                break;
            }
        }
        match (ended, state.fault) {
            (Some(value), _) => Ok(Value::Bool(value)),
            (None, Some(fault)) => Err(fault),
            (None, None) => Ok(match &a_loop.step {
                Fold::All(_) => Value::Bool(true),
                Fold::Exists(_) => Value::Bool(false),
                Fold::ExistsOne(_) => Value::Bool(state.count == 1),
                Fold::Collect { .. } => Value::list(state.items),
            }),
        }
    }

    /// One element; a value ends `all` or `exists`.
    fn step(
        &mut self,
        step: &'a Fold,
        state: &mut Looped<'a>,
    ) -> Result<Option<bool>, EvaluationError> {
        match step {
            Fold::All(test) => self.test(test, false, state),
            Fold::Exists(test) => self.test(test, true, state),
            Fold::ExistsOne(test) => {
                state.count += u64::from(bool(&self.value(test)?, "exists_one")?);
                Ok(None)
            }
            Fold::Collect { guard, item } => {
                let holds = match guard {
                    Some(guard) => bool(&self.value(guard)?, "filter")?,
                    None => true,
                };
                if holds {
                    state.items.push(self.value(item)?);
                }
                Ok(None)
            }
        }
    }

    /// A fault of one element counts only when no other element decides.
    fn test(
        &mut self,
        test: &'a Node,
        deciding: bool,
        state: &mut Looped<'a>,
    ) -> Result<Option<bool>, EvaluationError> {
        match self.value(test).and_then(|value| bool(&value, "all and exists")) {
            Ok(value) if value == deciding => return Ok(Some(deciding)),
            Ok(_) => {}
            Err(EvaluationError::Exhausted) => return Err(EvaluationError::Exhausted),
            Err(failed) => state.fault = Some(failed),
        }
        Ok(None)
    }
}

/// What a loop has gathered.
struct Looped<'a> {
    items: Vec<Value<'a>>,
    count: u64,
    fault: Option<EvaluationError>,
}

fn bool(value: &Value<'_>, what: &str) -> Result<bool, EvaluationError> {
    match value {
        Value::Bool(bool) => Ok(*bool),
        other => Err(EvaluationError::new(format!(
            "{what}: a bool is expected, not {}",
            other.type_name()
        ))),
    }
}
